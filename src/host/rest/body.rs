//! The body of a change: bounded in size, JSON, an object; anything else changes nothing.
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::header::{CONTENT_LENGTH, IF_MATCH};
use actix_web::web::Payload;
use serde_json::{Map, Value};

use super::reply::Reply;

/// Bytes a body may have.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// How long a body may take to come (SEC-41).
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A body that was not read yet.
pub struct Body<'a> {
    pub request: &'a HttpRequest,
    pub payload: Payload,
}

impl Body<'_> {
    /// A body that must be there: a JSON object with at least one key.
    pub async fn required(self) -> Result<Map<String, Value>, Reply> {
        if self.length()?.is_none() {
            return Err(Reply::error(411, "Length Required: send a Content-Length"));
        }
        let object = self.read().await?;
        if object.is_empty() {
            return Err(Reply::error(400, "Bad Request: the body is an empty object"));
        }
        Ok(object)
    }

    /// A body that may be missing, which is the same as `{}`.
    pub async fn optional(self) -> Result<Map<String, Value>, Reply> {
        match self.length()? {
            None if !self.request.headers().contains_key("transfer-encoding") => Ok(Map::new()),
            None => Err(Reply::error(411, "Length Required: send a Content-Length")),
            Some(0) => Ok(Map::new()),
            Some(_) => self.read().await,
        }
    }

    /// The version in `If-Match`; `*` and nothing mean any.
    pub fn if_match(&self) -> Result<Option<u64>, Reply> {
        let Some(header) = self.request.headers().get(IF_MATCH) else {
            return Ok(None);
        };
        let text = header.to_str().unwrap_or_default().trim().trim_matches('"');
        match text.parse() {
            Ok(version) => Ok(Some(version)),
            Err(_) if text == "*" => Ok(None),
            Err(_) => {
                Err(Reply::error(400, "Bad Request: If-Match must be the ETag of GET /config"))
            }
        }
    }

    fn length(&self) -> Result<Option<usize>, Reply> {
        let Some(header) = self.request.headers().get(CONTENT_LENGTH) else {
            return Ok(None);
        };
        let length = header.to_str().ok().and_then(|text| text.trim().parse().ok());
        match length {
            None => Err(Reply::error(400, "Bad Request: Content-Length is no number")),
            Some(length) if length > BODY_BYTES_MAX => Err(too_large()),
            Some(length) => Ok(Some(length)),
        }
    }

    async fn read(self) -> Result<Map<String, Value>, Reply> {
        let whole = self.payload.to_bytes_limited(BODY_BYTES_MAX);
        let Ok(whole) = tokio::time::timeout(BODY_TIMEOUT, whole).await else {
            let text = format!("Request Timeout: the body did not come within {BODY_TIMEOUT:?}");
            return Err(Reply::error(408, &text));
        };
        let bytes = match whole {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(_)) => return Err(Reply::error(400, "Bad Request: the body ended early")),
            Err(_) => return Err(too_large()),
        };
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(object)) => Ok(object),
            Ok(_) => Err(Reply::error(400, "Bad Request: the body is not a JSON object")),
            Err(error) => {
                Err(Reply::error(400, &format!("Bad Request: the body is not JSON: {error}")))
            }
        }
    }
}

fn too_large() -> Reply {
    let text = format!("Content Too Large: a body may have {BODY_BYTES_MAX} bytes");
    Reply::error(413, &text)
}
