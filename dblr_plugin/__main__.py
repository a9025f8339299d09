"""``python -m dblr_plugin``: the same as the ``dblr`` command."""

from dblr_plugin.commands import main

if __name__ == '__main__':
    main()
