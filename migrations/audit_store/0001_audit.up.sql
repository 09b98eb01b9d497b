-- Why: the append-only audit log, a hash chain (docs/audit.md has the encoding).
--
-- Invariants
--   * Entries are only ever added: update, delete and replace abort. `recursive_triggers` (set on every
--     connection of ours) makes REPLACE fire the delete trigger; audit_entries_no_replace holds without it.
--   * seq has no gaps; prev_hash is the entry_hash before it, 64 zeros for the first.
--   * No foreign key leads in or out: pruning a queue or dropping a bottle cannot touch evidence.
-- Lists of values are in pairs as in queue_store, which says why.

CREATE TABLE audit_entries (
  seq            INTEGER PRIMARY KEY,
  timestamp      TEXT NOT NULL,
  bottle_slug    TEXT NOT NULL,
  component      TEXT NOT NULL,
  operator_action TEXT NOT NULL,
  operator_notes TEXT NOT NULL,
  justification  TEXT NOT NULL,
  decided_by     TEXT NOT NULL,
  surface        TEXT NOT NULL CONSTRAINT audit_surface_is_known CHECK (surface IN ('cli', 'tui') OR surface IN ('web', 'api') OR surface = 'policy'),
  proposal_id    TEXT,
  payload_sha256 TEXT,
  final_sha256   TEXT,
  prev_hash      TEXT NOT NULL CONSTRAINT prev_hash_is_hex CHECK (length(prev_hash) = 64),
  entry_hash     TEXT NOT NULL CONSTRAINT entry_hash_is_hex CHECK (length(entry_hash) = 64),
  diff           TEXT NOT NULL    -- last: up to megabytes, and who counts entries does not read their pages
) STRICT;

-- Each serves one filter of read_audit_entries. Within equal keys an index keeps the order of seq, so the newest are found
-- without a sort, and what is not there at once, however much else the bottle has.
CREATE INDEX audit_entries_by_bottle ON audit_entries (bottle_slug);
CREATE INDEX audit_entries_by_bottle_and_component ON audit_entries (bottle_slug, component);
CREATE INDEX audit_entries_by_component ON audit_entries (component);
CREATE INDEX audit_entries_by_time ON audit_entries (timestamp);

CREATE TRIGGER audit_entries_no_update BEFORE UPDATE ON audit_entries
BEGIN
  SELECT RAISE(ABORT, 'the audit log is append-only');
END;

CREATE TRIGGER audit_entries_no_delete BEFORE DELETE ON audit_entries
BEGIN
  SELECT RAISE(ABORT, 'the audit log is append-only');
END;

CREATE TRIGGER audit_entries_no_replace BEFORE INSERT ON audit_entries
WHEN EXISTS (SELECT 1 FROM audit_entries WHERE seq = NEW.seq)
BEGIN
  SELECT RAISE(ABORT, 'the audit log is append-only');
END;
