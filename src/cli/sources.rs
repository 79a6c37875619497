//! Source text for `--lines`: what the recording kept of it, else what is found where it says that the file was, with a word
//! where it is not the same any more.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use crate::profile::{Profile, SourceFile};

/// Larger files are not shown.
const MOST_BYTES: u64 = 16 << 20;

/// What may be wrong then.
const OTHER: &str = ": the text beside the lines may be of other code";

/// Files, each read once.
#[derive(Debug, Default)]
pub struct Sources {
    recorded: Vec<SourceFile>,
    /// When the recording began; 0 when that is not known.
    started_at_ms: u64,
    files: HashMap<String, Option<Arc<Vec<String>>>>,
    /// Those that may not be the ones that ran.
    doubtful: HashSet<String>,
    /// What is to be said of files that may not be those that ran.
    pub warnings: Vec<String>,
}

impl Sources {
    /// Of the functions of `profile`.
    pub fn new(profile: &Profile) -> Sources {
        Sources {
            recorded: profile.sources.clone(),
            started_at_ms: profile.meta.started_at_ms,
            ..Sources::default()
        }
    }

    /// Lines of a source file, named as code objects do; `None` when it cannot be read.
    pub fn read(&mut self, file: &str) -> Option<Arc<Vec<String>>> {
        if let Some(known) = self.files.get(file) {
            return known.clone();
        }
        let text = self.find(file);
        self.files.insert(file.to_string(), text.clone());
        text
    }

    /// Whether a file that was read may not be the one that ran.
    pub fn is_doubtful(&self, file: &str) -> bool {
        self.doubtful.contains(file)
    }

    fn find(&mut self, file: &str) -> Option<Arc<Vec<String>>> {
        let mut recorded = self.recorded.iter().filter(|s| s.file == file);
        let (source, other) = (recorded.next(), recorded.next());
        let kept = source.filter(|_| other.is_none());
        if let Some((source, text)) = kept.and_then(|s| s.text.as_ref().map(|text| (s, text))) {
            if self.started_at_ms > 0 && source.modified_ms > self.started_at_ms {
                let warning = format!("{} was changed while it was recorded", source.path);
                self.warnings.push(format!("{warning}{OTHER}"));
                self.doubtful.insert(file.to_string());
            }
            return Some(Arc::new(text.lines().map(str::to_string).collect()));
        }
        let path = Path::new(source.map_or(file, |source| &source.path));
        let meta = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
        if meta.len() > MOST_BYTES {
            return None;
        }
        let bytes = fs::read(path).ok()?;
        let modified = meta.modified().ok();
        let modified = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let modified_ms = modified.map_or(0, |time| time.as_millis() as u64);
        let shown = path.display();
        let warning = if other.is_some() {
            Some(format!(
                "there are several files '{file}'; the text is that of {shown}"
            ))
        } else {
            let why = self.differs(source, &bytes, modified_ms);
            why.map(|why| format!("{shown} {why}{OTHER}"))
        };
        if warning.is_some() {
            self.doubtful.insert(file.to_string());
        }
        self.warnings.extend(warning);
        let text = String::from_utf8_lossy(&bytes);
        Some(Arc::new(text.lines().map(str::to_string).collect()))
    }

    /// Why the text may not be that of the code that ran.
    fn differs(
        &self,
        source: Option<&SourceFile>,
        bytes: &[u8],
        modified_ms: u64,
    ) -> Option<&'static str> {
        let started_ms = self.started_at_ms;
        match source {
            Some(source)
                if source.size != bytes.len() as u64 || source.hash != crc32fast::hash(bytes) =>
            {
                Some("has changed since the recording")
            }
            Some(source) if started_ms > 0 && source.modified_ms > started_ms => {
                Some("was changed while it was recorded")
            }
            Some(_) => None,
            None if started_ms > 0 && modified_ms > started_ms => {
                Some("is newer than the recording")
            }
            None => None,
        }
    }
}
