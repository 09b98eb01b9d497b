//! How do Python's values become the core's, and back?

use std::time::Duration;

use bot_bottle_store::{Error, Params, Row, SqlValue};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyFloat, PyInt, PyList, PyMapping, PyString};

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
            return Ok(Moment(text.extract()?));
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
        Ok(SqlValue::Integer(value.extract()?))
    } else if value.is_instance_of::<PyFloat>() {
        Ok(SqlValue::Real(value.extract()?))
    } else if value.is_instance_of::<PyString>() {
        Ok(SqlValue::Text(value.extract()?))
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
    if let Ok(mapping) = values.cast::<PyMapping>() {
        let mut named = Vec::new();
        for item in mapping.items()? {
            let (name, value): (String, Bound<'_, PyAny>) = item.extract()?;
            named.push((name, sql_value(&value)?));
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
