//! What goes back: a status code and one of four kinds of body, then the configured headers.
use actix_web::http::StatusCode;
use actix_web::http::header::{
    CONTENT_TYPE, ETAG, HeaderName, HeaderValue, SERVER, WWW_AUTHENTICATE,
};
use actix_web::{HttpResponse, HttpResponseBuilder};
use serde_json::Value;

use crate::pure::config::RestApi;
use crate::pure::patroni::json::dumps;
use crate::pure::patroni::{Answer, PATRONI_VERSION};

/// A reply before the configured headers are added.
#[derive(Debug)]
pub struct Reply {
    pub code: u16,
    content: Content,
    /// Version of what was read, for a later change of just that.
    etag: Option<String>,
}

#[derive(Debug)]
enum Content {
    /// Only a status line: probes, HEAD, OPTIONS.
    Bare,
    Json(String),
    /// An action's plain sentence, which Patroni calls `text/html`.
    Text(String),
    Metrics(String),
    /// The page of a refused request.
    Error(String),
    /// 401 with the challenge.
    Challenge(String),
}

impl Reply {
    fn new(code: u16, content: Content) -> Reply {
        Reply { code, content, etag: None }
    }

    /// The same with a version, which `If-Match` may name later.
    pub fn versioned(self, version: u64) -> Reply {
        Reply { etag: Some(format!("\"{version}\"")), ..self }
    }

    pub fn bare(code: u16) -> Reply {
        Reply::new(code, Content::Bare)
    }

    pub fn json(code: u16, value: &Value) -> Reply {
        Reply::new(code, Content::Json(dumps(value)))
    }

    pub fn text(code: u16, text: impl Into<String>) -> Reply {
        Reply::new(code, Content::Text(text.into()))
    }

    pub fn metrics(text: String) -> Reply {
        Reply::new(200, Content::Metrics(text))
    }

    pub fn challenge(text: &str) -> Reply {
        Reply::new(401, Content::Challenge(text.to_owned()))
    }

    /// A page that says what was wrong with the request.
    pub fn error(code: u16, text: &str) -> Reply {
        Reply::new(code, Content::Error(text.to_owned()))
    }
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Reply {
        Reply::text(answer.code, answer.text)
    }
}

/// The reply as bytes on the wire.
pub fn render(reply: Reply, restapi: &RestApi) -> HttpResponse {
    let code = StatusCode::from_u16(reply.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = HttpResponse::build(code);
    if let Ok(server) = HeaderValue::from_str(&server_header(&restapi.server_tokens)) {
        response.insert_header((SERVER, server));
    }
    let (content_type, body) = match reply.content {
        Content::Bare => return response.finish(),
        Content::Error(text) => {
            response.insert_header((CONTENT_TYPE, "text/html;charset=utf-8"));
            return response.body(page(reply.code, &text));
        }
        Content::Json(body) => ("application/json", body),
        Content::Text(body) => ("text/html", body),
        Content::Metrics(body) => ("text/plain", body),
        Content::Challenge(body) => {
            response.insert_header((WWW_AUTHENTICATE, "Basic realm=\"Patroni\""));
            ("text/html", body)
        }
    };
    response.insert_header((CONTENT_TYPE, content_type));
    if let Some(etag) = reply.etag {
        response.insert_header((ETAG, etag));
    }
    extra_headers(&mut response, restapi);
    response.body(body)
}

fn server_header(tokens: &str) -> String {
    match tokens {
        "productonly" => "Patroni".to_owned(),
        "minimal" => format!("Patroni/{PATRONI_VERSION}"),
        _ => format!("Patroni/{PATRONI_VERSION} Surus/{}", env!("CARGO_PKG_VERSION")),
    }
}

/// Headers that cannot be sent as written are left out; the configuration warns about them.
fn extra_headers(response: &mut HttpResponseBuilder, restapi: &RestApi) {
    for (name, value) in &restapi.http_extra_headers {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let name = HeaderName::try_from(name.as_str());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(&text)) {
            response.insert_header((name, value));
        }
    }
}

fn page(code: u16, text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    format!(
        "<!DOCTYPE html>\n<html><head><title>Error {code}</title></head>\n\
         <body><h1>Error {code}</h1><p>{text}</p></body></html>\n"
    )
}
