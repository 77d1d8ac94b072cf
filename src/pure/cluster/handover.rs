//! The handover token: where the WAL of a cluster that was demoted ended. Whoever takes over from
//! it is not promoted before it has replayed that far, so that nothing is left behind.
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::pure::postgres::lsn::Lsn;

/// `system identifier:timeline:LSN` of the shutdown checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    pub system_identifier: String,
    pub timeline: u32,
    pub lsn: Lsn,
}

impl Token {
    /// Has a standby of this identity, on this timeline, replayed the shutdown checkpoint?
    ///
    /// # Errors
    /// What is missing, in one sentence.
    pub fn is_replayed(&self, identity: &str, timeline: u32, replayed: Lsn) -> Result<(), String> {
        if identity != self.system_identifier {
            return Err(format!(
                "the token is of the system identifier {}, this cluster is {identity}",
                self.system_identifier
            ));
        }
        if timeline > self.timeline {
            return Err(format!(
                "the token is of timeline {}, and the remote has gone on to timeline {timeline}: \
                 it was promoted since",
                self.timeline
            ));
        }
        if timeline < self.timeline || replayed <= self.lsn {
            return Err(format!(
                "replay is at {replayed} on timeline {timeline} and has not passed the token's \
                 {} on timeline {}",
                self.lsn, self.timeline
            ));
        }
        Ok(())
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.system_identifier, self.timeline, self.lsn)
    }
}

impl FromStr for Token {
    type Err = String;

    fn from_str(text: &str) -> Result<Token, String> {
        let wrong = || {
            format!(
                "`{text}` is not a handover token such as 7575292331414216201:3:0/3000148, which \
                 demote-cluster prints"
            )
        };
        let mut parts = text.trim().splitn(3, ':');
        let mut part = || parts.next().ok_or_else(wrong);
        let system_identifier = part()?.to_owned();
        let digits = system_identifier.bytes().all(|b| b.is_ascii_digit());
        if system_identifier.is_empty() || !digits {
            return Err(wrong());
        }
        let timeline = part()?.parse().map_err(|_| wrong())?;
        let lsn = part()?.parse().map_err(|_| wrong())?;
        Ok(Token { system_identifier, timeline, lsn })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spec: SC-32.
    #[test]
    fn a_token_is_read_back_as_it_was_printed() {
        let text = "7575292331414216201:3:0/3000148";
        let token: Token = text.parse().expect("a token");
        assert_eq!((token.timeline, token.lsn), (3, Lsn(0x300_0148)));
        assert_eq!(token.to_string(), text);
        for wrong in ["", "7:3", "x:3:0/1", "7:x:0/1", "7:3:1", ":3:0/1"] {
            assert!(wrong.parse::<Token>().is_err(), "{wrong}");
        }
    }

    /// Spec: SC-30, SC-32.
    #[test]
    fn a_token_is_reached_when_the_shutdown_checkpoint_is_replayed() {
        let token: Token = "771:3:0/3000148".parse().expect("a token");
        assert_eq!(token.is_replayed("771", 3, Lsn(0x300_01C0)), Ok(()));
        let missing = |id: &str, timeline, lsn| token.is_replayed(id, timeline, Lsn(lsn)).is_err();
        assert!(missing("771", 3, 0x300_0148), "the record begins there");
        assert!(missing("771", 2, 0x400_0000) && missing("771", 4, 0x400_0000));
        assert!(missing("772", 3, 0x400_0000));
    }
}
