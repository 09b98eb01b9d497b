-- Loses: the tokens; bottles that use the broker are refused until they are started again.
DROP TABLE bottle_tokens;
