-- Loses: the audit log. `db rollback` takes a backup first and says where.
DROP TABLE audit_entries;
