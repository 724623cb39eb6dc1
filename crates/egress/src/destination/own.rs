//! The addresses of the server's own machine: behind a public one of these stands the same as behind its loopback.

use std::{
    io,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long what the kernel said is believed. It is asked by two dumps of its tables, which takes 0.1 ms and more with each
/// bridge; addresses that a machine was given this moment serve nobody yet.
const BELIEVED: Duration = Duration::from_secs(5);

type Read = dyn Fn() -> io::Result<Vec<IpAddr>> + Send + Sync;

pub(super) struct OwnAddresses {
    read: Box<Read>,
    last: Mutex<Option<(Instant, Arc<[IpAddr]>)>>,
}

impl OwnAddresses {
    pub(super) fn of_this_machine() -> OwnAddresses {
        OwnAddresses::read_by(|| {
            let interfaces = if_addrs::get_if_addrs()?;
            Ok(interfaces.iter().map(if_addrs::Interface::ip).collect())
        })
    }

    /// By something else than the kernel: for tests.
    pub(super) fn read_by(
        read: impl Fn() -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> OwnAddresses {
        OwnAddresses {
            read: Box::new(read),
            last: Mutex::new(None),
        }
    }

    /// As they are now, or were a moment ago.
    ///
    /// # Errors
    /// As the kernel does not tell; what it said before is not taken for it.
    pub(super) fn now(&self) -> io::Result<Arc<[IpAddr]>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((read, addresses)) = &*last
            && read.elapsed() < BELIEVED
        {
            return Ok(Arc::clone(addresses));
        }
        let addresses: Arc<[IpAddr]> = (self.read)()?.into();
        *last = Some((Instant::now(), Arc::clone(&addresses)));
        Ok(addresses)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn the_kernel_tells_and_is_not_asked_each_time() {
        let own = OwnAddresses::of_this_machine().now().unwrap();
        assert!(own.contains(&"127.0.0.1".parse().unwrap()), "{own:?}");
        let asked = Arc::new(AtomicUsize::new(0));
        let counting = Arc::clone(&asked);
        let own = OwnAddresses::read_by(move || match counting.fetch_add(1, Ordering::SeqCst) {
            0 => Err(io::ErrorKind::OutOfMemory.into()),
            _ => Ok(vec!["192.0.2.1".parse().unwrap()]),
        });
        assert!(own.now().is_err());
        for _ in 0..3 {
            assert_eq!(own.now().unwrap().len(), 1);
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        // Long ago, for the machine that is asked.
        let old = Instant::now().checked_sub(BELIEVED).unwrap();
        if let Some((read, _)) = &mut *own.last.lock().unwrap() {
            *read = old;
        }
        own.now().unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 3);
    }
}
