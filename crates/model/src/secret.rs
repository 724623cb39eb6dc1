//! Values that must not be printed.

use serde::{Deserialize, Deserializer};
use zeroize::Zeroize;

/// A value that cannot be printed, logged or serialized. It is read by [`Secret::expose`] alone, which is easy to find.
/// Its memory is overwritten when it is dropped.
///
/// What this does not stop: copies made after `expose`, and those that a growing buffer left before it became a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Wraps a value.
    pub const fn new(value: T) -> Self {
        Secret(value)
    }

    /// The value itself: call this only where it leaves for its one destination.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> std::fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

impl<'de, T: Deserialize<'de> + Zeroize> Deserialize<'de> for Secret<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Secret)
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn a_secret_does_not_print() {
        let secret = Secret::new("canary".to_owned());
        assert_eq!(format!("{secret:?}"), "[secret]");
        assert_eq!(secret.expose(), "canary");
    }
}
