//! What the kernel's TCP does with a connection.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The kernel's names of TCP states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the names are the kernel's, include/net/tcp_states.h")]
pub enum TcpState {
    Established,
    SynSent,
    SynRecv,
    #[serde(rename = "FIN_WAIT1")]
    FinWait1,
    #[serde(rename = "FIN_WAIT2")]
    FinWait2,
    TimeWait,
    Close,
    CloseWait,
    LastAck,
    Listen,
    Closing,
}

impl TcpState {
    /// Reads the kernel's number.
    #[must_use]
    pub fn from_kernel(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Established,
            2 => Self::SynSent,
            3 => Self::SynRecv,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            7 => Self::Close,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            10 => Self::Listen,
            11 => Self::Closing,
            _ => return None,
        })
    }

    /// Whether the process has closed its end, so that it cannot be blamed for the connection.
    ///
    /// CLOSE is not among these: a socket that its process has closed is destroyed as it gets
    /// there, so one that stays was reset by the server and is still held.
    #[must_use]
    pub fn closed_by_process(self) -> bool {
        matches!(
            self,
            Self::FinWait1 | Self::FinWait2 | Self::TimeWait | Self::LastAck | Self::Closing
        )
    }

    /// Whether the server has ended the connection and the process still holds it. A socket that
    /// its process closes is destroyed at once, so `CLOSE` lasts only while the process holds it.
    #[must_use]
    pub fn ended_by_server(self) -> bool {
        matches!(self, Self::CloseWait | Self::Close)
    }

    /// The kernel's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Established => "ESTABLISHED",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::FinWait1 => "FIN_WAIT1",
            Self::FinWait2 => "FIN_WAIT2",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::Listen => "LISTEN",
            Self::Closing => "CLOSING",
        }
    }
}

impl fmt::Display for TcpState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
