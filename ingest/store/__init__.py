"""What is kept, and how: one repository over two engines, SQLite and PostgreSQL.

``schema`` states the tables, ``rows`` the values that go in and out, ``turns`` and
``derived`` the statements, ``writer`` the group commit, ``sqlite`` and ``postgres``
the two connections beneath, ``store`` the door for everybody else.
"""
