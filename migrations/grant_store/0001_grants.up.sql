-- Why: an approval may hold for more than one use; this is what is left of it.
--
-- Invariants
--   * A use is spent by one guarded UPDATE, so uses_left never goes below zero and no use is spent twice.
--   * What was given is signed (docs/statements.md); what is left of it, and its end, are not.
--   * A grant names a fingerprint, never a secret. It is revoked, never deleted.

CREATE TABLE grants (
  id           TEXT NOT NULL PRIMARY KEY,
  bottle_slug  TEXT NOT NULL,
  tool         TEXT NOT NULL,
  fingerprint  TEXT NOT NULL,
  scope        TEXT NOT NULL CONSTRAINT grant_scope_is_known CHECK (scope IN ('once', 'uses', 'until', 'bottle')),
  uses         INTEGER,         -- given; NULL = not counted
  uses_left    INTEGER CONSTRAINT uses_left_is_not_negative CHECK (uses_left >= 0),
  expires_at   TEXT,
  proposal_id  TEXT,
  created_at   TEXT NOT NULL,
  created_by   TEXT NOT NULL,
  last_used_at TEXT,
  revoked_at   TEXT,
  revoked_by   TEXT,
  key_id       TEXT NOT NULL,
  signature    TEXT NOT NULL,
  CONSTRAINT counted_scopes_count CHECK ((scope IN ('once', 'uses')) = (uses_left IS NOT NULL)),
  CONSTRAINT timed_scope_ends CHECK (scope <> 'until' OR expires_at IS NOT NULL)
) STRICT, WITHOUT ROWID;

-- Serves use_grant: the grants that could still be spent.
CREATE INDEX grants_live ON grants (bottle_slug, tool, fingerprint) WHERE revoked_at IS NULL;
