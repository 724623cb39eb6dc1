//! The backend's verbs.
use async_trait::async_trait;
use model::{BackendName, SandboxSpec, SessionId, UsageView};
use sandbox::{Backend, BackendError, Capability, Inspection, Link, Listed};

use crate::NativeConfig;

/// The embedded runtime.
pub struct Native {
    config: NativeConfig,
}

impl Native {
    /// Prepares the state directory. Creates no sandbox and changes nothing outside of it.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub fn open(config: NativeConfig) -> Result<Native, BackendError> {
        Ok(Native { config })
    }
    fn unavailable(&self) -> BackendError {
        BackendError::Unavailable {
            why: format!("being written for {}", self.config.owner),
            remedy: String::new(),
        }
    }
}

#[async_trait]
impl Backend for Native {
    fn name(&self) -> BackendName {
        BackendName::Native
    }
    async fn capability(&self) -> Result<Capability, BackendError> {
        Err(self.unavailable())
    }
    async fn create(&self, _: &SandboxSpec) -> Result<Link, BackendError> {
        Err(self.unavailable())
    }
    async fn connect(&self, _: SessionId) -> Result<Link, BackendError> {
        Err(self.unavailable())
    }
    async fn inspect(&self, _: SessionId) -> Result<Inspection, BackendError> {
        Err(self.unavailable())
    }
    async fn list(&self) -> Result<Vec<Listed>, BackendError> {
        Err(self.unavailable())
    }
    async fn stats(&self, _: SessionId) -> Result<UsageView, BackendError> {
        Err(self.unavailable())
    }
    async fn pause(&self, _: SessionId) -> Result<(), BackendError> {
        Err(self.unavailable())
    }
    async fn resume(&self, _: SessionId) -> Result<(), BackendError> {
        Err(self.unavailable())
    }
    async fn destroy(&self, _: SessionId) -> Result<(), BackendError> {
        Err(self.unavailable())
    }
}
