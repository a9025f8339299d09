"""Motion blur synthesised from sharp images: camera and object motion, exposures, and a sensor model."""

from dblr_plugin.data.motion.store import WindowStore, WindowWriter, is_window_store
from dblr_plugin.data.motion.windows import MotionWindows, SharpPictures, read_pictures

__all__ = ['MotionWindows', 'SharpPictures', 'WindowStore', 'WindowWriter', 'is_window_store', 'read_pictures']
