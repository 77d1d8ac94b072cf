//! HTTP basic authentication: the header both sides agree on.
use crate::pure::config::Credentials;

/// What a request without the right header is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Missing,
    Wrong,
}

impl Refusal {
    pub fn text(self) -> &'static str {
        match self {
            Refusal::Missing => "no auth header received",
            Refusal::Wrong => "not authenticated",
        }
    }
}

/// The value of `Authorization` for these credentials.
pub fn header(credentials: &Credentials) -> String {
    let password = credentials.password.as_ref().map_or("", |secret| secret.0.as_str());
    format!("Basic {}", base64(format!("{}:{password}", credentials.username).as_bytes()))
}

/// Compares in a time that does not depend on where the texts differ.
pub fn check(received: Option<&[u8]>, credentials: &Credentials) -> Result<(), Refusal> {
    let received = received.ok_or(Refusal::Missing)?;
    let expected = header(credentials);
    let same_length = received.len() == expected.len();
    let differing = received.iter().zip(expected.as_bytes()).fold(0, |sum, (a, b)| sum | (a ^ b));
    if same_length && differing == 0 { Ok(()) } else { Err(Refusal::Wrong) }
}

fn base64(input: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in input.chunks(3) {
        let bits = (0..3).fold(0u32, |sum, i| sum << 8 | u32::from(*chunk.get(i).unwrap_or(&0)));
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i) & 63) as usize] as char;
            out.push(if i <= chunk.len() { digit } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::config::Secret;

    fn user(name: &str, password: &str) -> Credentials {
        Credentials { username: name.into(), password: Some(Secret(password.into())) }
    }

    #[test]
    fn the_header_is_the_standards() {
        // The example of RFC 7617.
        assert_eq!(header(&user("Aladdin", "open sesame")), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(base64(b"ab"), "YWI=");
        assert_eq!(base64(b"abc"), "YWJj");
        assert_eq!(base64(b""), "");
    }

    #[test]
    fn only_the_exact_header_passes() {
        let user = user("u", "p");
        let right = header(&user);
        assert_eq!(check(Some(right.as_bytes()), &user), Ok(()));
        assert_eq!(check(None, &user), Err(Refusal::Missing));
        assert_eq!(check(Some(b""), &user), Err(Refusal::Wrong));
        assert_eq!(check(Some(&right.as_bytes()[..5]), &user), Err(Refusal::Wrong));
        assert_eq!(check(Some(b"Basic dTpx"), &user), Err(Refusal::Wrong));
    }
}
