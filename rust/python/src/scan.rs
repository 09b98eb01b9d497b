//! `scan`: the egress proxy's scanner over bytes at hand.

use std::collections::BTreeMap;

use bot_bottle_scan as scan;
use bot_bottle_store as store;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::convert::Text;
use crate::error::ToPy;

#[pyclass(frozen, module = "bot_bottle")]
pub struct SecretFinding(scan::Finding);

#[pymethods]
impl SecretFinding {
    #[getter]
    fn detector(&self) -> &str {
        &self.0.detector
    }

    #[getter]
    fn kind(&self) -> &'static str {
        self.0.kind.name()
    }

    #[getter]
    fn secret<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.secret)
    }

    #[getter]
    fn span(&self) -> Option<(u64, u64)> {
        self.0.span.as_ref().map(|span| (span.start, span.end))
    }

    #[getter]
    fn how(&self) -> Vec<&'static str> {
        self.0.how.iter().map(|step| step.name()).collect()
    }

    #[getter]
    fn place(&self) -> &str {
        &self.0.place.name
    }

    fn explain(&self) -> String {
        self.0.explain()
    }

    fn __repr__(&self) -> String {
        format!("SecretFinding({:?})", self.0.explain())
    }
}

#[pyfunction(name = "scan")]
#[pyo3(signature = (data, *, token_patterns = true, known = None, place = "body", host = "", codings = None))]
pub fn scan_bytes(
    py: Python<'_>,
    data: Text,
    token_patterns: bool,
    known: Option<BTreeMap<String, Text>>,
    place: &str,
    host: &str,
    codings: Option<Vec<String>>,
) -> PyResult<Vec<SecretFinding>> {
    let known = known.unwrap_or_default().into_iter().map(|(name, value)| (name, value.into_bytes())).collect();
    let place = match place {
        "URL query" => scan::Place::query(host),
        other => scan::Place::new(other, host),
    };
    let codings = codings.unwrap_or_default();
    let found = py.detach(|| {
        let detectors = scan::Detectors::new(token_patterns, known);
        let mut scanner = scan::Scanner::new(&detectors, &scan::Budget::for_request()).at(place).encoded(&codings)?;
        let mut found = scanner.feed(data.bytes())?;
        found.extend(scanner.finish()?);
        Ok(found)
    });
    let invalid = |error: scan::ScanError| store::Error::InvalidInput {
        what: "the data",
        reason: format!("cannot be scanned: {error}"),
    };
    Ok(found.map_err(invalid).to_py()?.into_iter().map(SecretFinding).collect())
}
