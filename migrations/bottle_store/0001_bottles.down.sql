-- Loses: the register of bottles, their managed files and their tokens; start the bottles again to fill it.
DROP TABLE bottle_tokens;
DROP TABLE managed_files;
DROP TABLE bottles;
