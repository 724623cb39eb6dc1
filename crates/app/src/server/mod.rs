//! The server.
mod house;
pub use house::House;
