-- Why: which bottles run, which host files a decision may write for them, and how the broker knows them.
--
-- Invariants
--   * A slug has one row; starting it again reuses it.
--   * A bottle's row, its managed files and its valid tokens carry one signature of the host (docs/statements.md). A
--     sidecar can write these tables, but not sign: what does not verify leads to no path and opens nothing.
--   * Only the SHA-256 of a token is kept: who reads this table cannot be a bottle. (256 random bits need no salt.)
--   * Stopping a bottle revokes its tokens for good; a start after that makes a new one.

CREATE TABLE bottles (
  slug       TEXT NOT NULL PRIMARY KEY,
  backend    TEXT NOT NULL,
  transport  TEXT NOT NULL,      -- 'mount' or 'broker'
  generation INTEGER NOT NULL,   -- grows with each registration, so that an old one cannot be put back
  started_at TEXT NOT NULL,
  stopped_at TEXT,
  key_id     TEXT NOT NULL,      -- which key signed this row, its files and its valid tokens
  signature  TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE managed_files (
  bottle_slug  TEXT NOT NULL REFERENCES bottles (slug) ON DELETE CASCADE,
  tool         TEXT NOT NULL,
  path         TEXT NOT NULL CONSTRAINT managed_path_is_absolute CHECK (path LIKE '/%'),
  known_sha256 TEXT NOT NULL,   -- as last seen by the host, for sidecars that cannot see the file; '' = absent
  PRIMARY KEY (bottle_slug, tool)
) STRICT, WITHOUT ROWID;

CREATE TABLE bottle_tokens (
  token_sha256 TEXT NOT NULL PRIMARY KEY CONSTRAINT token_is_hashed CHECK (length(token_sha256) = 64),
  bottle_slug  TEXT NOT NULL REFERENCES bottles (slug) ON DELETE CASCADE,
  created_at   TEXT NOT NULL,
  revoked_at   TEXT
) STRICT, WITHOUT ROWID;

CREATE INDEX bottle_tokens_of_bottle ON bottle_tokens (bottle_slug) WHERE revoked_at IS NULL; -- for revoking them
