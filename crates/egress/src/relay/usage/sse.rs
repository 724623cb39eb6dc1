//! Event streams: lines of `data:` up to an empty line (the HTML standard, section 9.2.6).

/// Longest event that is read; a longer one is passed over. Events with usage are below 4 KiB.
const MAX_EVENT_BYTES: usize = 1024 * 1024;

#[derive(Default)]
pub(super) struct Events {
    line: Vec<u8>,
    data: Vec<u8>,
    /// The event under way is too long to be read.
    too_long: bool,
}

impl Events {
    pub(super) fn push(&mut self, piece: &[u8], found: &mut impl FnMut(&[u8])) {
        let mut rest = piece;
        while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let (line, after) = rest.split_at(end);
            self.extend(line);
            self.line_ended(found);
            // Where a piece ends between CR and LF, the LF is taken for an empty line: the event is read a line early.
            let end_bytes = if after.starts_with(b"\r\n") { 2 } else { 1 };
            rest = after.get(end_bytes..).unwrap_or_default();
        }
        self.extend(rest);
    }

    /// The stream ended; an event without its empty line is read all the same.
    pub(super) fn finish(&mut self, found: &mut impl FnMut(&[u8])) {
        self.line_ended(found);
        self.dispatch(found);
    }

    fn extend(&mut self, bytes: &[u8]) {
        if self.line.len() + self.data.len() + bytes.len() > MAX_EVENT_BYTES {
            self.too_long = true;
        }
        if self.too_long {
            // Enough to tell an empty line from others.
            self.line.truncate(1);
            self.line.extend(bytes.first());
            self.data.clear();
        } else {
            self.line.extend_from_slice(bytes);
        }
    }

    fn line_ended(&mut self, found: &mut impl FnMut(&[u8])) {
        if self.line.is_empty() {
            self.dispatch(found);
        } else if !self.too_long
            && let Some(value) = self.line.strip_prefix(b"data:")
        {
            if !self.data.is_empty() {
                self.data.push(b'\n');
            }
            self.data
                .extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
        }
        self.line.clear();
    }

    fn dispatch(&mut self, found: &mut impl FnMut(&[u8])) {
        if !self.data.is_empty() {
            found(&self.data);
        }
        self.data.clear();
        self.too_long = false;
    }
}
