//! Pages: their data, and what a real Chromium makes of them.

use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{find_program, kept_folder, not_here, project, run_with};

/// The JSON in a page's data.
pub fn head(page: &str) -> Value {
    let (_, data) = page.split_once("id=\"data\">").expect("data");
    let (data, _) = data.split_once("</script>").expect("an end");
    let packed = STANDARD.decode(data.trim()).expect("base64");
    let mut raw = Vec::new();
    flate2::read::ZlibDecoder::new(&packed[..])
        .read_to_end(&mut raw)
        .expect("zlib");
    let length = u32::from_le_bytes(raw[..4].try_into().expect("four")) as usize;
    serde_json::from_slice(&raw[4..4 + length]).expect("JSON")
}

/// What `script` (below `tests`) does with a page and tells of it; `None` where there is no Chromium.
pub fn drive(script: &str, page: &Path, task: &Value) -> Option<Value> {
    let modules = kept_folder().join("test-node/node_modules");
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let Some(browser) = names.into_iter().find_map(find_program) else {
        not_here("chromium: pages are not looked at");
        return None;
    };
    if find_program("node").is_none() || !modules.join("puppeteer-core").is_dir() {
        not_here("node with puppeteer-core (bash .ci/run fetches it)");
        return None;
    }
    let mut command = Command::new("node");
    command
        .arg(project().join("tests").join(script))
        .arg(modules.join("puppeteer-core"))
        .arg(browser)
        .arg(page)
        .arg(task.to_string());
    let ran = run_with(&mut command, &[], Duration::from_secs(180)).ok();
    Some(serde_json::from_str(&ran.stdout).expect("JSON"))
}
