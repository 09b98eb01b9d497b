//! Is every secret found however it is wrapped and cut, and is what is no secret left alone?

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod made;
mod ordinary;
mod wrapped;
