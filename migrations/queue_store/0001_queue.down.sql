-- Loses: every proposal, response, message and change. The audit log keeps what was decided.
DROP TABLE changes;
DROP TABLE applies;
DROP TABLE messages;
DROP TABLE responses;
DROP TABLE aliases;
DROP TABLE proposals;
DROP TABLE tallies;
