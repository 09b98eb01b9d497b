-- Why: which bottles run, and which host files a decision may write for them.
--
-- Invariants
--   * A slug has one row; starting it again reuses it.
--   * Only the host's operator side writes managed_files: a sidecar cannot name a path.

CREATE TABLE bottles (
  slug       TEXT NOT NULL PRIMARY KEY,
  backend    TEXT NOT NULL,
  started_at TEXT NOT NULL,
  stopped_at TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE managed_files (
  bottle_slug  TEXT NOT NULL REFERENCES bottles (slug) ON DELETE CASCADE,
  tool         TEXT NOT NULL,
  path         TEXT NOT NULL CONSTRAINT managed_path_is_absolute CHECK (path LIKE '/%'),
  known_sha256 TEXT NOT NULL,   -- as last seen by the host, for sidecars that cannot see the file; '' = absent
  PRIMARY KEY (bottle_slug, tool)
) STRICT, WITHOUT ROWID;
