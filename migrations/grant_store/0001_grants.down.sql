-- Loses: all grants; what they allowed is asked again.
DROP TABLE grants;
