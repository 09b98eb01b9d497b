-- Why: the queue itself. A sidecar's proposal is one row from arrival to archive; nothing moves between tables.
--
-- Invariants
--   * A proposal's content never changes (trigger proposals_content_is_immutable); only its state does.
--   * There is at most one answer to a proposal (responses' primary key), and it is never changed.
--   * What was said about a proposal is never changed, and goes with the proposal alone (triggers on messages).
--   * `expired` needs no sweeper: a pending row whose expires_at has passed counts as expired wherever it
--     is read. The stored state follows when somebody is told, so that what was said stays true.
--   * Timestamps are RFC 3339 UTC with six decimals and Z: their text order is their time order.
--   * `seq` is the order of arrival. No order depends on a clock.
-- Lists of values are in pairs: a longer one SQLite makes into a table at each insert, three tenths of a proposal.

CREATE TABLE proposals (
  seq                INTEGER PRIMARY KEY,
  id                 TEXT NOT NULL CONSTRAINT proposals_id_is_unique UNIQUE,
  queue_key          TEXT NOT NULL,
  bottle_slug        TEXT NOT NULL,
  tool               TEXT NOT NULL,
  payload_sha256     TEXT NOT NULL CONSTRAINT payload_sha256_is_hex CHECK (length(payload_sha256) = 64),
  justification      TEXT NOT NULL,
  arrival_timestamp  TEXT NOT NULL,
  current_file_hash  TEXT,          -- as the requester gave it
  base_sha256        TEXT,          -- what the managed file must still hash to when this is decided; '' = absent
  expires_at         TEXT,
  fingerprint        TEXT,          -- what a grant made from the approval is about
  revises            TEXT,          -- the id of the proposal in whose place its requester put this one
  revision           INTEGER NOT NULL DEFAULT 1, -- how many that makes in a row, this one included
  state              TEXT NOT NULL DEFAULT 'pending' CONSTRAINT proposal_state_is_known
                     CHECK (state IN ('pending', 'approved') OR state IN ('modified', 'rejected') OR state IN ('expired', 'withdrawn')),
  waiting_until      TEXT,          -- lease of whoever is blocked on it; in the past: nobody is any more
  requester_left_at  TEXT,          -- withdrawn by its first requester while others still ask the same
  withdrawn_at       TEXT,
  withdrawn_reason   TEXT,
  archived_at        TEXT,
  proposed_file      TEXT NOT NULL, -- last: a row's small columns are read without its overflow pages
  CONSTRAINT withdrawn_says_when CHECK ((state = 'withdrawn') = (withdrawn_at IS NOT NULL))
) STRICT;

-- Serves listing, the cap, and coalescing, and costs the same however much is archived: only pending rows are in it.
CREATE UNIQUE INDEX proposals_pending
  ON proposals (queue_key, bottle_slug, tool, payload_sha256, ifnull(base_sha256, 'unknown'), ifnull(fingerprint, ''))
  WHERE state = 'pending';

-- Serves the question before each write whether anything has expired: mostly nothing could, and it is empty.
CREATE INDEX proposals_expiring ON proposals (queue_key, expires_at) WHERE state = 'pending' AND expires_at IS NOT NULL;

-- Serve paging the past of a queue and of a bottle.
CREATE INDEX proposals_by_queue ON proposals (queue_key, seq);
CREATE INDEX proposals_by_bottle ON proposals (bottle_slug, seq);

CREATE TRIGGER proposals_content_is_immutable
BEFORE UPDATE OF id, queue_key, bottle_slug, tool, payload_sha256, justification, arrival_timestamp,
                 current_file_hash, base_sha256, expires_at, fingerprint, revises, revision, proposed_file ON proposals
BEGIN
  SELECT RAISE(ABORT, 'a proposal is immutable once written');
END;

-- A state is left once: pending -> anything, and nothing -> pending.
CREATE TRIGGER proposals_are_decided_once
BEFORE UPDATE OF state ON proposals WHEN OLD.state <> 'pending'
BEGIN
  SELECT RAISE(ABORT, 'a proposal changes state once');
END;

-- How many there are of each kind, kept as rows come, change and go: counting a million takes seconds. A number that
-- somebody else wrote there must not end the counting, and with it the write: it is brought between 0 and 2^53 first.
CREATE TABLE tallies (
  bottle_slug TEXT NOT NULL,
  tool        TEXT NOT NULL,
  state       TEXT NOT NULL,   -- as stored
  proposals   INTEGER NOT NULL,
  PRIMARY KEY (bottle_slug, tool, state)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER proposals_that_come_are_counted AFTER INSERT ON proposals
BEGIN
  INSERT INTO tallies (bottle_slug, tool, state, proposals) VALUES (NEW.bottle_slug, NEW.tool, NEW.state, 1)
    ON CONFLICT DO UPDATE SET proposals = max(0, min(proposals, 9007199254740991)) + 1;
END;

CREATE TRIGGER proposals_that_change_are_counted AFTER UPDATE OF state ON proposals
BEGIN
  UPDATE tallies SET proposals = max(1, min(proposals, 9007199254740991)) - 1
    WHERE bottle_slug = OLD.bottle_slug AND tool = OLD.tool AND state = OLD.state;
  INSERT INTO tallies (bottle_slug, tool, state, proposals) VALUES (NEW.bottle_slug, NEW.tool, NEW.state, 1)
    ON CONFLICT DO UPDATE SET proposals = max(0, min(proposals, 9007199254740991)) + 1;
END;

CREATE TRIGGER proposals_that_go_are_counted AFTER DELETE ON proposals
BEGIN
  UPDATE tallies SET proposals = max(1, min(proposals, 9007199254740991)) - 1
    WHERE bottle_slug = OLD.bottle_slug AND tool = OLD.tool AND state = OLD.state;
END;

-- Other ids that lead to a row: identical proposals coalesce, each requester keeps the id it knows.
CREATE TABLE aliases (
  id                TEXT NOT NULL PRIMARY KEY,
  proposal_seq      INTEGER NOT NULL REFERENCES proposals (seq) ON DELETE CASCADE,
  justification     TEXT NOT NULL,
  arrival_timestamp TEXT NOT NULL,
  withdrawn_at      TEXT
) STRICT, WITHOUT ROWID;

CREATE INDEX aliases_by_proposal ON aliases (proposal_seq);

CREATE TABLE responses (
  proposal_seq   INTEGER PRIMARY KEY REFERENCES proposals (seq) ON DELETE CASCADE,
  status         TEXT NOT NULL CONSTRAINT response_status_is_known CHECK (status IN ('approved', 'modified') OR status = 'rejected'),
  notes          TEXT NOT NULL,
  payload_sha256 TEXT NOT NULL,
  final_sha256   TEXT,
  decided_by     TEXT NOT NULL,
  surface        TEXT NOT NULL CONSTRAINT response_surface_is_known CHECK (surface IN ('cli', 'tui') OR surface IN ('web', 'api') OR surface = 'policy'),
  decided_at     TEXT NOT NULL,
  review_sha256  TEXT NOT NULL,   -- of all that was reviewed
  scope          TEXT,            -- of the grant that goes with it
  key_id         TEXT NOT NULL,   -- which key signed the decision (docs/statements.md)
  signature      TEXT NOT NULL,
  final_file     TEXT,            -- last, as the proposed file is
  CONSTRAINT modified_has_a_final_file CHECK ((status = 'modified') = (final_file IS NOT NULL))
) STRICT;

CREATE TRIGGER responses_are_final BEFORE UPDATE ON responses
BEGIN
  SELECT RAISE(ABORT, 'a response is final');
END;

-- What is said about a proposal while it is pending: the operator asks, the requester answers. Not in the order of a clock.
CREATE TABLE messages (
  seq          INTEGER PRIMARY KEY,
  id           TEXT NOT NULL CONSTRAINT messages_id_is_unique UNIQUE,
  proposal_seq INTEGER NOT NULL REFERENCES proposals (seq) ON DELETE CASCADE,
  sender       TEXT NOT NULL CONSTRAINT message_sender_is_known CHECK (sender IN ('operator', 'requester')),
  written_by   TEXT NOT NULL,
  surface      TEXT NOT NULL CONSTRAINT message_surface_is_known CHECK (surface IN ('cli', 'tui') OR surface IN ('web', 'api') OR surface = 'policy'),
  written_at   TEXT NOT NULL,
  text         TEXT NOT NULL,
  key_id       TEXT,            -- which key signed the question (docs/statements.md)
  signature    TEXT,
  CONSTRAINT questions_are_signed CHECK ((sender = 'operator') = (signature IS NOT NULL) AND (sender = 'operator') = (key_id IS NOT NULL))
) STRICT;

-- Serves the thread of a proposal, in its order, and who had the last word.
CREATE INDEX messages_by_proposal ON messages (proposal_seq, seq);

CREATE TRIGGER messages_are_final BEFORE UPDATE ON messages
BEGIN
  SELECT RAISE(ABORT, 'a message is final');
END;

-- With its proposal it goes, when that is pruned: then there is none any more as this fires.
CREATE TRIGGER messages_go_with_their_proposal BEFORE DELETE ON messages
WHEN EXISTS (SELECT 1 FROM proposals WHERE seq = OLD.proposal_seq)
BEGIN
  SELECT RAISE(ABORT, 'a message is final');
END;

-- A decision on a managed file: intended with the decision, applied once the file on the host is the decided one.
CREATE TABLE applies (
  proposal_seq    INTEGER PRIMARY KEY REFERENCES proposals (seq) ON DELETE CASCADE,
  path            TEXT NOT NULL,
  expected_sha256 TEXT NOT NULL,   -- '' = the file must not exist
  final_sha256    TEXT NOT NULL,
  state           TEXT NOT NULL DEFAULT 'intended' CONSTRAINT apply_state_is_known CHECK (state IN ('intended', 'applied') OR state = 'failed'),
  error           TEXT,
  updated_at      TEXT NOT NULL
) STRICT;

-- Serves recovery and the operator's list of what is not in effect.
CREATE INDEX applies_open ON applies (state) WHERE state <> 'applied';

-- What `watch` reads: one row per step of a proposal's life, so that a watcher can go on from where it was.
CREATE TABLE changes (
  seq         INTEGER PRIMARY KEY,
  kind        TEXT NOT NULL CONSTRAINT change_kind_is_known
              CHECK (kind IN ('proposed', 'approved') OR kind IN ('modified', 'rejected') OR kind IN ('expired', 'withdrawn')
                OR kind IN ('applied', 'apply_failed') OR kind IN ('asked', 'answered') OR kind = 'archived'),
  proposal_id TEXT NOT NULL,
  bottle_slug TEXT NOT NULL,
  tool        TEXT NOT NULL,
  at          TEXT NOT NULL
) STRICT;
