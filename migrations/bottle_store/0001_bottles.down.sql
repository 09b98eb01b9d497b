-- Loses: the register of bottles and their managed files; start the bottles again to fill it.
DROP TABLE managed_files;
DROP TABLE bottles;
