//! Time that goes on while the machine sleeps: a lease must not outlive a suspended laptop.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    io::{self, Errno},
    time::{
        ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec,
        clock_gettime, timerfd_create, timerfd_settime,
    },
};

/// A point of `CLOCK_BOOTTIME`, microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

impl Moment {
    /// Now.
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        Moment(seconds.saturating_mul(1_000_000) + u64::try_from(time.tv_nsec).unwrap_or(0) / 1000)
    }

    /// That much later.
    pub const fn after_ms(self, milliseconds: u64) -> Self {
        Moment(self.0.saturating_add(milliseconds.saturating_mul(1000)))
    }

    /// Microseconds from an earlier moment to this one.
    pub const fn micros_since(self, earlier: Moment) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The one timer of the loop: always set to the next thing that is due.
pub struct Timer {
    descriptor: OwnedFd,
    armed: Option<Moment>,
}

impl Timer {
    /// A timer that is not set.
    pub fn new() -> io::Result<Self> {
        let descriptor = timerfd_create(
            TimerfdClockId::Boottime,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        Ok(Timer {
            descriptor,
            armed: None,
        })
    }

    /// Sets it to an absolute moment; a past one fires at once.
    pub fn arm(&mut self, moment: Moment) -> io::Result<()> {
        if self.armed == Some(moment) {
            return Ok(());
        }
        // Zero would switch the timer off. Seconds past i64 (a deadline of "never") are as good as the last one.
        let micros = moment.0.max(1);
        let value = Timespec {
            tv_sec: i64::try_from(micros / 1_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(micros % 1_000_000).unwrap_or(0) * 1000,
        };
        let spec = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: value,
        };
        timerfd_settime(&self.descriptor, TimerfdTimerFlags::ABSTIME, &spec)?;
        self.armed = Some(moment);
        Ok(())
    }

    /// Takes the expiry, so that it can be set to the same moment again.
    pub fn clear(&mut self) {
        let mut count = [0u8; 8];
        match io::read(&self.descriptor, &mut count) {
            Ok(_) | Err(Errno::AGAIN) => self.armed = None,
            Err(_) => {}
        }
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
