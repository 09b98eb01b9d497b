-- Why: with a token a bottle's sidecars show the broker which bottle they are.
--
-- Invariants
--   * Only the SHA-256 of a token is kept: who reads this table cannot be a bottle. (256 random bits need no salt.)
--   * Stopping a bottle revokes its tokens for good; a start after that makes a new one.

CREATE TABLE bottle_tokens (
  token_sha256 TEXT NOT NULL PRIMARY KEY CONSTRAINT token_is_hashed CHECK (length(token_sha256) = 64),
  bottle_slug  TEXT NOT NULL REFERENCES bottles (slug) ON DELETE CASCADE,
  created_at   TEXT NOT NULL,
  revoked_at   TEXT
) STRICT, WITHOUT ROWID;

CREATE INDEX bottle_tokens_of_bottle ON bottle_tokens (bottle_slug) WHERE revoked_at IS NULL; -- for revoking them
