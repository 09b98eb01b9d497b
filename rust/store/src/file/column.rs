//! How is a column read that anybody may have written?
//!
//! SQLite takes any bytes for TEXT. Read strictly, one invalid byte in one row would be an error of the whole list it is in;
//! so what is no UTF-8 comes as U+FFFD, which fits no signature and no hash, and a value of a type that the column cannot
//! have comes as the nearest of that type.

use std::borrow::Cow;
use std::cell::Cell;

use rusqlite::types::ValueRef;
use rusqlite::{Row, RowIndex};

use crate::state::{Stored, Vocabulary};

/// The column of a row, whatever is in it.
pub(crate) fn get<T: Column>(row: &Row<'_>, index: impl RowIndex) -> rusqlite::Result<T> {
    row.get_ref(index).map(T::of)
}

/// A row whose columns are asked for by name in about the order that they have: SQLite compares each name with those of
/// all columns, which for a row of thirty takes longer than to read it; this looks first at the one after the last.
pub struct Fields<'r, 's> {
    row: &'r Row<'s>,
    next: Cell<usize>,
}

impl<'r, 's> Fields<'r, 's> {
    pub(crate) fn of(row: &'r Row<'s>) -> Self {
        Fields { row, next: Cell::new(0) }
    }

    /// The column of this name, as [`get`].
    pub(crate) fn get<T: Column>(&self, name: &str) -> rusqlite::Result<T> {
        let (columns, next) = (self.row.as_ref(), self.next.get());
        let at = if next < columns.column_count() && columns.column_name(next)? == name {
            next
        } else {
            columns.column_index(name)?
        };
        self.next.set(at + 1);
        get(self.row, at)
    }
}

/// A text without a copy, where it is one.
pub(crate) fn text<'r>(row: &'r Row<'_>, index: impl RowIndex) -> rusqlite::Result<Option<Cow<'r, str>>> {
    Ok(match row.get_ref(index)? {
        ValueRef::Null => None,
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes)),
        other => Some(String::of(other).into()),
    })
}

pub(crate) trait Column {
    fn of(value: ValueRef<'_>) -> Self;
}

impl Column for String {
    fn of(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Null => String::new(),
            ValueRef::Integer(number) => number.to_string(),
            ValueRef::Real(number) => number.to_string(),
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        }
    }
}

impl<T: Vocabulary> Column for Stored<T> {
    fn of(value: ValueRef<'_>) -> Self {
        String::of(value).into()
    }
}

impl Column for i64 {
    fn of(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Integer(number) => number,
            ValueRef::Real(number) => number as i64,
            _ => 0,
        }
    }
}

impl Column for bool {
    fn of(value: ValueRef<'_>) -> Self {
        i64::of(value) != 0
    }
}

impl<T: Column> Column for Option<T> {
    fn of(value: ValueRef<'_>) -> Self {
        (value != ValueRef::Null).then(|| T::of(value))
    }
}
