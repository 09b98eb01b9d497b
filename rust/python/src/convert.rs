//! How do Python's values become the core's, and back?

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bot_bottle_store::{Error, Params, Row, SqlValue};
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyUnicodeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyCFunction, PyDict, PyFloat, PyInt, PyList, PyMapping, PyString};

use crate::error::exception;

/// `str` or `bytes`, as bytes of UTF-8. A lone surrogate stays in them as an invalid sequence, for the core to refuse
/// with its offset, instead of a codec's error.
pub struct Text(Vec<u8>);

impl Text {
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl<'py> FromPyObject<'_, 'py> for Text {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(text) = value.cast::<PyString>() {
            let bytes = text.call_method1("encode", ("utf-8", "surrogatepass"))?;
            return Ok(Text(bytes.cast::<PyBytes>()?.as_bytes().to_vec()));
        }
        match value.cast::<PyBytes>() {
            Ok(bytes) => Ok(Text(bytes.as_bytes().to_vec())),
            Err(_) => Err(PyTypeError::new_err(format!("expected str or bytes, not {}", value.get_type().name()?))),
        }
    }
}

/// Why an argument is refused. It says itself which one once `pyo3` has called `add_note("while processing 'name'")` on it,
/// as it does with every error of an argument: as a note, the name would be in a traceback alone.
fn refused(py: Python<'_>, reason: String) -> PyErr {
    let error = exception(py, &Error::InvalidInput { what: "an argument", reason: reason.clone() });
    let value = error.value(py).clone().unbind();
    let named = PyCFunction::new_closure(py, None, None, move |arguments, _| -> PyResult<()> {
        let (note,): (String,) = arguments.extract()?;
        let Some(name) = note.split('\'').nth(1) else { return Ok(()) };
        let (value, message) = (value.bind(arguments.py()), format!("{name} {reason}"));
        value.delattr("add_note")?;
        value.setattr("message", &message)?;
        value.setattr("args", (message,))
    });
    if let Ok(named) = named {
        let _ = error.value(py).setattr("add_note", named);
    }
    error
}

/// An argument that text or a number of Python's may be too strange for: those are errors of ours, not of a codec.
pub fn given<'a, T: Given<'a>>(value: &'a Bound<'_, PyAny>) -> PyResult<T> {
    T::given(value)
}

pub trait Given<'a>: Sized {
    fn given(value: &'a Bound<'_, PyAny>) -> PyResult<Self>;
}

impl<'a> Given<'a> for &'a str {
    fn given(value: &'a Bound<'_, PyAny>) -> PyResult<Self> {
        let text = value.cast::<PyString>().map_err(|_| wrong_type("str", value))?;
        text.to_str().map_err(|_| refused(value.py(), half_a_character(value)))
    }
}

impl Given<'_> for String {
    fn given(value: &Bound<'_, PyAny>) -> PyResult<Self> {
        given::<&str>(value).map(str::to_owned)
    }
}

impl Given<'_> for PathBuf {
    fn given(value: &Bound<'_, PyAny>) -> PyResult<Self> {
        value.extract().map_err(|error: PyErr| match error.is_instance_of::<PyUnicodeError>(value.py()) {
            true => refused(value.py(), half_a_character(value)),
            false => error,
        })
    }
}

impl Given<'_> for Text {
    fn given(value: &Bound<'_, PyAny>) -> PyResult<Self> {
        value.extract()
    }
}

/// Numbers of Python's have no end.
macro_rules! given_numbers {
    ($($kind:ty: $range:literal),*) => { $(impl Given<'_> for $kind {
        fn given(value: &Bound<'_, PyAny>) -> PyResult<Self> {
            value.extract().map_err(|error: PyErr| match error.is_instance_of::<PyOverflowError>(value.py()) {
                true => refused(value.py(), concat!("must be ", $range).to_owned()),
                false => error,
            })
        }
    })* };
}
given_numbers! {
    i64: "a whole number from -2^63 to 2^63-1",
    u32: "a whole number from 0 to 4294967295",
    usize: "a whole number from 0 to 2^64-1",
    f64: "a number of at most 1.8e308"
}

impl<'a, T: Given<'a>> Given<'a> for Option<T> {
    fn given(value: &'a Bound<'_, PyAny>) -> PyResult<Self> {
        if value.is_none() { Ok(None) } else { given(value).map(Some) }
    }
}

impl Given<'_> for Vec<String> {
    fn given(value: &Bound<'_, PyAny>) -> PyResult<Self> {
        let values: Vec<Bound<'_, PyAny>> = value.extract()?;
        values.iter().map(given).collect()
    }
}

impl Given<'_> for Vec<(String, String)> {
    fn given(value: &Bound<'_, PyAny>) -> PyResult<Self> {
        let pairs: Vec<(Bound<'_, PyAny>, Bound<'_, PyAny>)> = value.extract()?;
        pairs.iter().map(|(one, other)| Ok((given(one)?, given(other)?))).collect()
    }
}

impl<T: for<'a> Given<'a>> Given<'_> for BTreeMap<String, T> {
    fn given(value: &Bound<'_, PyAny>) -> PyResult<Self> {
        let items = value.cast::<PyMapping>().map_err(|_| wrong_type("a mapping", value))?.items()?;
        let pairs: Vec<(Bound<'_, PyAny>, Bound<'_, PyAny>)> = items.extract()?;
        pairs.iter().map(|(name, value)| Ok((given(name)?, given(value)?))).collect()
    }
}

fn wrong_type(wanted: &str, value: &Bound<'_, PyAny>) -> PyErr {
    let found = value.get_type().name().map_or_else(|_| "something else".to_owned(), |name| name.to_string());
    PyTypeError::new_err(format!("expected {wanted}, not {found}"))
}

/// Where a lone surrogate is, half of a character that UTF-8 cannot hold.
fn half_a_character(value: &Bound<'_, PyAny>) -> String {
    let at = value.call_method0("__fspath__").unwrap_or_else(|_| value.clone());
    let bytes = Text::extract(at.as_borrowed()).map(Text::into_bytes).unwrap_or_default();
    let valid = std::str::from_utf8(&bytes).map_or_else(|error| error.valid_up_to(), |text| text.len());
    format!("is not Unicode text: a lone surrogate follows its first {valid} bytes")
}

/// A moment as the core reads it: text as it is, or a `datetime` that says its time zone.
pub struct Moment(String);

impl Moment {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn into_string(self) -> String {
        self.0
    }
}

impl<'py> FromPyObject<'_, 'py> for Moment {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(text) = value.cast::<PyString>() {
            return match text.to_str() {
                Ok(text) => Ok(Moment(text.to_owned())),
                Err(_) => Err(refused(value.py(), half_a_character(&text.to_owned()))),
            };
        }
        let py = value.py();
        let datetime = py.import("datetime")?; // whoever has one has imported it
        if !value.is_instance(&datetime.getattr("datetime")?)? {
            return Err(PyTypeError::new_err(format!("expected str or datetime, not {}", value.get_type().name()?)));
        }
        if value.call_method0("utcoffset")?.is_none() {
            let reason = "must say its time zone; give datetime.now(timezone.utc), for example".to_owned();
            return Err(exception(py, &Error::InvalidInput { what: "a datetime", reason }));
        }
        let utc = datetime.getattr("timezone")?.getattr("utc")?;
        let utc = value.call_method1("astimezone", (utc,)).map_err(|_overflow| {
            exception(py, &Error::InvalidInput { what: "a datetime", reason: "is out of range".to_owned() })
        })?;
        let text: String = utc.call_method1("isoformat", ("T", "microseconds"))?.extract()?;
        Ok(Moment(text.replace("+00:00", "Z")))
    }
}

/// Seconds as the core takes them; `None` and infinity are for ever.
pub fn duration(py: Python<'_>, what: &'static str, seconds: Option<f64>) -> PyResult<Option<Duration>> {
    match seconds {
        None => Ok(None),
        Some(seconds) if seconds == f64::INFINITY => Ok(None),
        // What would overflow is longer than anything lasts.
        Some(seconds) => {
            Duration::try_from_secs_f64(if seconds > 1e18 { 1e18 } else { seconds }).map(Some).map_err(|_| {
                let reason = format!("must be a number of seconds from 0 on, not {seconds}");
                exception(py, &Error::InvalidInput { what, reason })
            })
        }
    }
}

/// A JSON value as Python's own types.
pub fn json<'py>(py: Python<'py>, value: &serde_json::Value) -> PyResult<Bound<'py, PyAny>> {
    use serde_json::Value;
    Ok(match value {
        Value::Null => py.None().into_bound(py),
        Value::Bool(truth) => truth.into_pyobject(py)?.to_owned().into_any(),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => integer.into_pyobject(py)?.into_any(),
            None => number.as_f64().unwrap_or(f64::NAN).into_pyobject(py)?.into_any(),
        },
        Value::String(text) => text.into_pyobject(py)?.into_any(),
        Value::Array(values) => {
            let list = PyList::empty(py);
            for value in values {
                list.append(json(py, value)?)?;
            }
            list.into_any()
        }
        Value::Object(fields) => {
            let dict = PyDict::new(py);
            for (name, value) in fields {
                dict.set_item(name, json(py, value)?)?;
            }
            dict.into_any()
        }
    })
}

/// Whatever the core serialises, as a `dict`.
pub fn dict<'py>(py: Python<'py>, value: &impl serde::Serialize) -> PyResult<Bound<'py, PyAny>> {
    let value = serde_json::to_value(value).map_err(|error| PyTypeError::new_err(error.to_string()))?;
    json(py, &value)
}

fn sql_value(value: &Bound<'_, PyAny>) -> PyResult<SqlValue> {
    if value.is_none() {
        Ok(SqlValue::Null)
    } else if value.is_instance_of::<PyInt>() {
        Ok(SqlValue::Integer(given(value)?))
    } else if value.is_instance_of::<PyFloat>() {
        Ok(SqlValue::Real(value.extract()?))
    } else if value.is_instance_of::<PyString>() {
        Ok(SqlValue::Text(given(value)?))
    } else if let Ok(bytes) = value.cast::<PyBytes>() {
        Ok(SqlValue::Blob(bytes.as_bytes().to_vec()))
    } else {
        let name = value.get_type().name()?;
        Err(PyTypeError::new_err(format!("SQL takes None, int, float, str and bytes, not {name}")))
    }
}

/// A statement's parameters: a mapping by name or a sequence by place.
pub fn params(values: Option<&Bound<'_, PyAny>>) -> PyResult<Params> {
    let Some(values) = values else { return Ok(Params::Positional(Vec::new())) };
    all_params(values).inspect_err(|error| {
        let _ = error.value(values.py()).call_method1("add_note", ("while processing 'params'",));
    })
}

fn all_params(values: &Bound<'_, PyAny>) -> PyResult<Params> {
    if let Ok(mapping) = values.cast::<PyMapping>() {
        let mut named = Vec::new();
        for item in mapping.items()? {
            let (name, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = item.extract()?;
            named.push((given(&name)?, sql_value(&value)?));
        }
        return Ok(Params::Named(named));
    }
    let values: PyResult<Vec<SqlValue>> = values.try_iter()?.map(|value| sql_value(&value?)).collect();
    Ok(Params::Positional(values?))
}

/// A statement's rows, each a `dict` by column name.
pub fn rows<'py>(py: Python<'py>, rows: Vec<Row>) -> PyResult<Vec<Bound<'py, PyDict>>> {
    rows.into_iter()
        .map(|row| {
            let dict = PyDict::new(py);
            for (name, value) in row {
                match value {
                    SqlValue::Null => dict.set_item(name, py.None())?,
                    SqlValue::Integer(integer) => dict.set_item(name, integer)?,
                    SqlValue::Real(real) => dict.set_item(name, real)?,
                    SqlValue::Text(text) => dict.set_item(name, text)?,
                    SqlValue::Blob(bytes) => dict.set_item(name, PyBytes::new(py, &bytes))?,
                }
            }
            Ok(dict)
        })
        .collect()
}
