-- Loses: nothing; one bottle's entries of one component take longer to find.
DROP INDEX audit_entries_by_bottle;
CREATE INDEX audit_entries_by_bottle ON audit_entries (bottle_slug);
