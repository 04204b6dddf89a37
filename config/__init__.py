"""Settings and entry points.

SQLite comes from the pysqlite3 wheel where it is installed: versions 3.7.0 to 3.51.2, which most
distributions still ship, can corrupt a database when its write-ahead log is reset. The swap must
happen before anything imports ``sqlite3``; this package is the first one that does.
"""

import sys

try:
    import pysqlite3
except ImportError:  # the system's SQLite; a start-up check warns when it is too old
    pass
else:
    sys.modules["sqlite3"] = pysqlite3
    sys.modules["sqlite3.dbapi2"] = pysqlite3.dbapi2
