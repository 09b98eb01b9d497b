-- Why: the newest entries of one bottle and one component were found by looking at every row of the bottle.
--
-- With seq ahead of component the index keeps the order of writing, so a bottle's newest still come without a sort, and
-- rows of another component are passed over in the index itself. It takes the place of one that had the bottle only.

DROP INDEX audit_entries_by_bottle;
CREATE INDEX audit_entries_by_bottle ON audit_entries (bottle_slug, seq, component);
