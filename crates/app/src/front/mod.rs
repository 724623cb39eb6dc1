//! Fronts.
