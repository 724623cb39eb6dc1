//! (to be written)
#![deny(unsafe_code)]
