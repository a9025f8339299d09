"""What ``dblr doctor`` looks at.

It must run in a broken environment, so its modules import the standard library alone; all else is imported inside the
checks, and those run in a process of their own.
"""

from dblr_plugin.doctor.checkup import checks
from dblr_plugin.doctor.examine import Check, examine
from dblr_plugin.doctor.findings import FAULT, NOTE, OK, Finding

__all__ = ['FAULT', 'NOTE', 'OK', 'Check', 'Finding', 'checks', 'examine']
