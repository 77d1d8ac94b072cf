//! Asks nodes over REST, as every other client does: the one way of `surus ctl`, and of a daemon that
//! cannot take part.
//!
//! The configuration names this node's own REST address; the rest is learned from `/cluster`. Dead
//! members cost one short connection attempt. Nothing here needs a quorum. A call goes out once: what
//! came of a change without an answer is not known.
use std::collections::VecDeque;
use std::time::Duration;

use serde_json::Value;
use ureq::Agent;
use ureq::http::Request;

use super::dump;
use crate::pure::config::{Config, HostPort};
use crate::pure::patroni::{basic_auth, json};

const CONNECT_WAIT: Duration = Duration::from_secs(2);
const READ_WAIT: Duration = Duration::from_secs(5);
/// A restart or a switchover may take this long before its caller hears of it.
pub const ACTION_WAIT: Duration = Duration::from_secs(600);

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub code: u16,
    pub body: String,
    /// The version of what was read, where there is one.
    pub etag: Option<String>,
}

/// A way to the cluster.
pub struct Client {
    agent: Agent,
    authorization: Option<String>,
    pub config: Option<Config>,
    /// Base addresses in the order in which they are tried, `http://host:port`.
    doors: Vec<String>,
}

impl Client {
    /// A client for one configuration, without any arguments.
    pub fn of(config: Config) -> Client {
        let doors = configured_doors(&config);
        Client::new(Some(config), doors)
    }

    /// A client for these addresses, tried in their order; the configuration says as whom it speaks.
    pub fn new(config: Option<Config>, mut doors: Vec<String>) -> Client {
        let mut seen = Vec::new();
        doors.retain(|door| {
            !seen.contains(door) && {
                seen.push(door.clone());
                true
            }
        });
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_connect(Some(CONNECT_WAIT))
            .max_idle_connections(0)
            .build();
        let credentials = config.as_ref().and_then(|config| {
            config.ctl.authentication.as_ref().or(config.restapi.authentication.as_ref())
        });
        let authorization = credentials.map(basic_auth::header);
        Client { agent: agent.into(), authorization, config, doors }
    }

    /// Where nodes are asked: base addresses of their REST interfaces.
    pub fn doors(&self) -> &[String] {
        &self.doors
    }

    /// GET from one member.
    pub fn get(&self, base: &str, path: &str) -> Result<Response, String> {
        self.call("GET", base, path, None, READ_WAIT)
    }

    /// Any request to one member. `Err` says why there is no answer at all.
    pub fn call(
        &self,
        method: &str,
        base: &str,
        path: &str,
        body: Option<&Value>,
        wait: Duration,
    ) -> Result<Response, String> {
        self.conditional(method, base, path, body, None, wait)
    }

    /// Replaces the dynamic configuration if it still has this version.
    pub fn replace_config(
        &self,
        config: &Value,
        version: Option<&str>,
        wait: Duration,
    ) -> Result<Response, String> {
        let door = self.open_door()?;
        self.conditional("PUT", &door, "/config", Some(config), version, wait)
    }

    fn conditional(
        &self,
        method: &str,
        base: &str,
        path: &str,
        body: Option<&Value>,
        version: Option<&str>,
        wait: Duration,
    ) -> Result<Response, String> {
        let text = body.map(json::dumps).unwrap_or_default();
        let mut request = Request::builder().method(method).uri(format!("{base}{path}"));
        if let Some(value) = &self.authorization {
            request = request.header("Authorization", value);
        }
        if let Some(version) = version {
            request = request.header("If-Match", version);
        }
        let request = request.header("Content-Type", "application/json");
        let failed = |error: &dyn std::fmt::Display| format!("{base} does not answer: {error}");
        let sent = match body {
            None => self.send(request.body(()).map_err(|e| failed(&e))?, wait),
            Some(_) => self.send(request.body(text).map_err(|e| failed(&e))?, wait),
        };
        let mut response = sent.map_err(|error| failed(&error))?;
        let etag = response.headers().get("ETag").and_then(|value| value.to_str().ok());
        let etag = etag.map(str::to_owned);
        let body = response.body_mut().with_config().limit(64 << 20).read_to_string();
        let body = body.map_err(|e| failed(&e))?;
        let body = words_of_page(&body).unwrap_or(body);
        Ok(Response { code: response.status().as_u16(), body, etag })
    }

    fn send(
        &self,
        request: Request<impl ureq::AsSendBody>,
        wait: Duration,
    ) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        let request = self.agent.configure_request(request).timeout_global(Some(wait)).build();
        self.agent.run(request)
    }

    /// The body of `/cluster`: from a member that sees a quorum if there is one, else from the
    /// first that answers, which then says so itself.
    pub fn cluster(&self) -> Result<Value, String> {
        let mut tried: Vec<String> = Vec::new();
        let mut errors = Vec::new();
        let mut best: Option<Value> = None;
        let mut doors = VecDeque::from(self.doors.clone());
        let mut remembered = false;
        while let Some(door) = doors.pop_front() {
            if !tried.contains(&door) {
                tried.push(door.clone());
                match self.get(&door, "/cluster").and_then(parse) {
                    Ok(body) if body["surus"]["quorum"] != false => return Ok(body),
                    Ok(body) => {
                        doors.extend(member_doors(&body["surus"]["members"]));
                        best.get_or_insert(body);
                    }
                    Err(error) => errors.push(error),
                }
            }
            if doors.is_empty() && best.is_none() && !remembered {
                remembered = true;
                doors.extend(self.remembered_doors());
            }
        }
        best.ok_or_else(|| format!("No member answers: {}", errors.join("; ")))
    }

    /// Addresses that the stopped daemon's state directory remembers.
    fn remembered_doors(&self) -> Vec<String> {
        let stored = self.config.as_ref().and_then(|config| dump::from_state_dir(config).ok());
        stored.map(|dump| member_doors(&dump["cluster"]["members"])).unwrap_or_default()
    }

    /// The cluster's name: the configuration's scope, else what a member says.
    pub fn scope(&self, body: &Value) -> String {
        let configured = self.config.as_ref().map(|config| config.scope.clone());
        configured.unwrap_or_else(|| body["scope"].as_str().unwrap_or_default().to_owned())
    }

    /// The address of a member that answers; one that sees a quorum, if there is one.
    fn open_door(&self) -> Result<String, String> {
        let cluster = self.cluster()?;
        let members = &cluster["surus"]["members"];
        let node = cluster["surus"]["node"].as_str().unwrap_or_default();
        let own = members[node]["api_url"].as_str().map(base);
        let doors = own.into_iter().chain(self.doors.clone()).chain(member_doors(members));
        let mut doors = doors.filter(|door| self.get(door, "/liveness").is_ok());
        doors.next().ok_or_else(|| "No member answers".to_owned())
    }

    /// GET from a member that answers.
    pub fn any(&self, path: &str) -> Result<Response, String> {
        self.get(&self.open_door()?, path)
    }

    /// A change that any member accepts. It goes to one of them only: without an answer it may
    /// have been done, and asking another would do it twice.
    pub fn change(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response, String> {
        self.call(method, &self.open_door()?, path, body, ACTION_WAIT)
    }
}

/// The JSON of a good answer.
pub fn parse(response: Response) -> Result<Value, String> {
    if response.code != 200 {
        return Err(format!("status code {}, {}", response.code, response.body.trim()));
    }
    serde_json::from_str(&response.body).map_err(|error| format!("not JSON: {error}"))
}

/// What an error page (Patroni answers some faults with one) says.
fn words_of_page(body: &str) -> Option<String> {
    let page = body.strip_prefix("<!DOCTYPE html>")?;
    let words = page.split_once("<p>")?.1.split_once("</p>")?.0;
    Some(words.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
}

fn member_doors(members: &Value) -> Vec<String> {
    let Some(members) = members.as_object() else {
        return Vec::new();
    };
    members.values().filter_map(|member| member["api_url"].as_str()).map(base).collect()
}

/// `http://host:port` out of an address or a URL with a path.
pub fn base(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    format!("http://{}", rest.split('/').next().unwrap_or_default())
}

/// Our own REST addresses first, then the same port on the hosts of the Raft partners.
pub fn configured_doors(config: &Config) -> Vec<String> {
    let port = config.restapi.connect_address.port;
    let partners = config.raft.partner_addrs.iter();
    let partners =
        partners.map(|addr| format!("http://{}", HostPort { host: addr.host.clone(), port }));
    own_doors(config).into_iter().chain(partners).collect()
}

/// Where this node's own daemon answers.
pub fn own_doors(config: &Config) -> Vec<String> {
    let restapi = &config.restapi;
    let reachable = match restapi.listen.host.as_str() {
        "" | "*" | "0.0.0.0" | "::" => "127.0.0.1".to_owned(),
        host => host.to_owned(),
    };
    let listen = HostPort { host: reachable, port: restapi.listen.port };
    [restapi.connect_address.clone(), listen]
        .into_iter()
        .filter(|address| !address.host.is_empty() && address.port > 0)
        .map(|address| format!("http://{address}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_page_is_its_sentence() {
        let page =
            "<!DOCTYPE html>\n<html><body><h1>Error 502</h1><p>a &lt;b&gt; &amp; c</p></body>";
        assert_eq!(words_of_page(page).as_deref(), Some("a <b> & c"));
        assert_eq!(words_of_page("plain <p>text</p>"), None);
    }

    #[test]
    fn addresses_lose_scheme_and_path() {
        assert_eq!(base("http://10.0.0.1:8008/patroni"), "http://10.0.0.1:8008");
        assert_eq!(base("10.0.0.1:8008"), "http://10.0.0.1:8008");
        assert_eq!(base("raft://[::1]:8008/service"), "http://[::1]:8008");
    }
}
