//! Which number does the next row of a table get, whatever numbers somebody else gave to theirs?
//!
//! SQLite takes the largest and adds one, so that one row with the largest number there is would be the last in order, or
//! the last at all. Rows with a number that no table of ours gets to, nor any program in another language can count to,
//! do not count; nor does one whose successor is taken.

/// From here on a row is nobody's of ours: doubles, and with them JSON in a browser, count no further.
pub(crate) const END: i64 = (1 << 53) - 1;

/// SQL for the number that the next row of `table` follows; `NULL` while there is none.
pub(crate) fn last(table: &str) -> String {
    format!(
        "(SELECT last.seq FROM {table} AS last WHERE last.seq > 0 AND last.seq < {END}
           AND NOT EXISTS (SELECT 1 FROM {table} AS next WHERE next.seq = last.seq + 1)
         ORDER BY last.seq DESC LIMIT 1)"
    )
}

/// SQL for the number of the next row.
pub(crate) fn next(table: &str) -> String {
    format!("ifnull({}, 0) + 1", last(table))
}
