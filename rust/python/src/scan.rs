//! `scan`: the egress proxy's scanner over bytes at hand.

use std::collections::BTreeMap;

use bot_bottle_scan as scan;
use bot_bottle_store as store;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::convert::{Text, given};
use crate::error::ToPy;

/// A secret that :func:`scan` found and where it is; ``repr`` does not show the secret.
#[pyclass(frozen, module = "bot_bottle")]
pub struct SecretFinding(scan::Finding);

#[pymethods]
impl SecretFinding {
    /// The format's id, such as ``GitHub token``, or the name a known secret was given with.
    #[getter]
    fn detector(&self) -> &str {
        &self.0.detector
    }

    /// ``token_patterns`` or ``known_secrets``, as ``routes.yaml`` names the detector.
    #[getter]
    fn kind(&self) -> &'static str {
        self.0.kind.name()
    }

    /// The secret itself, decoded.
    #[getter]
    fn secret<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.secret)
    }

    /// Begin and end of the bytes that spell it; overwriting them takes it out. ``None`` in compressed data.
    #[getter]
    fn span(&self) -> Option<(u64, u64)> {
        self.0.span.as_ref().map(|span| (span.start, span.end))
    }

    /// The steps that hid it, outermost first: ``["base64", "gzip"]``.
    #[getter]
    fn how(&self) -> Vec<&'static str> {
        self.0.how.iter().map(|step| step.name()).collect()
    }

    /// The place as it was given to :func:`scan`.
    #[getter]
    fn place(&self) -> &str {
        &self.0.place.name
    }

    /// What was found, where, under which encodings, and where its format is described; one line, no secret.
    fn explain(&self) -> String {
        self.0.explain()
    }

    fn __repr__(&self) -> String {
        format!("SecretFinding({:?})", self.0.explain())
    }
}

/// The secrets in ``data``, however encoded, as the egress proxy finds them.
///
/// Args:
///     token_patterns: look for the published formats of tokens and keys.
///     known: what a secret is called → its value; those shorter than 8 bytes are left out.
///     place: where in a request the data stands; in ``URL query`` a signed URL's own parameters are no secret.
///     host: the host that the request goes to, in lower case.
///     codings: the content codings of a body, in the order applied: gzip, deflate, br, zstd.
///
/// Raises:
///     InvalidInputError: it is not so coded, or decoding it takes more work or memory than a request may use.
#[pyfunction(name = "scan")]
#[pyo3(signature = (data, *, token_patterns = true, known = None, place = "body", host = "", codings = None))]
pub fn scan_bytes(
    py: Python<'_>,
    data: Text,
    token_patterns: bool,
    #[pyo3(from_py_with = given)] known: Option<BTreeMap<String, Text>>,
    #[pyo3(from_py_with = given)] place: &str,
    #[pyo3(from_py_with = given)] host: &str,
    #[pyo3(from_py_with = given)] codings: Option<Vec<String>>,
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
