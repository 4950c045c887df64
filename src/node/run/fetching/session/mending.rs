//! Finding and putting back chunks that rotted.

use std::time::Instant;

use bytes::Bytes;

use super::{Ended, PAUSE_MIN, Session, differs, is_bad};
use crate::disk::Files;
use crate::net::SnapshotRequest;
use crate::node::run::fetching::FetchError;
use crate::node::run::fetching::mending::{Mender, Rotten};
use crate::node::transfer::{Source, Sources};
use crate::snapshot::{self, Manifest, Mended, Reader};
use crate::types::LogId;

/// What a look through a whole snapshot has found.
enum Looked {
    /// These chunks are not what was written.
    Through(Vec<u32>),
    /// Something more urgent came.
    Interrupted,
    /// It is gone, or does not open.
    AtNothing,
}

impl<F: Files> Session<'_, F> {
    /// What is to be mended next, if anything is due. False: nothing is. `whole` is told of each suspect that is right.
    pub async fn mend_next(&mut self, mender: &Mender, whole: &mut impl FnMut(LogId)) -> bool {
        if let Some(rotten) = mender.take_due(Instant::now()) {
            self.mend_one(mender, rotten).await;
            return true;
        }
        let Some(manifest) = mender.take_suspect() else { return false };
        match self.find_rotten(&manifest) {
            Looked::Through(rotten) if rotten.is_empty() => whole(manifest.description.point),
            Looked::Through(rotten) => mender.found(&manifest, &rotten),
            Looked::Interrupted => mender.is_suspect(&manifest),
            Looked::AtNothing => {}
        }
        true
    }

    /// Puts a chunk back that rotted. What comes of it is told to the operator.
    async fn mend_one(&mut self, mender: &Mender, rotten: Rotten) {
        let Rotten { manifest, number, .. } = &rotten;
        let (name, number, mut sources) = (manifest.description.name(), *number, Sources::new(self.way.others()));
        match self.is_here(manifest) {
            Ok(true) => {}
            // Newer ones took its place.
            Ok(false) => return,
            Err(error) => return tracing::error!(name, number, "a rotten chunk stays as it is: {error}"),
        }
        match self.mend(manifest, number, &mut sources).await {
            Ok(()) => mender.is_mended(&rotten),
            Err(FetchError::Interrupted) => mender.put_back(rotten),
            Err(error) => {
                let again = if error.may_pass() { mender.again(&rotten, self.options.mend_pause) } else { None };
                let next_step = error.next_step();
                match again {
                    Some(pause) => tracing::warn!(name, number, ?pause, "a rotten chunk is asked for again: {error}"),
                    None => tracing::error!(name, number, next_step, "a rotten chunk stays as it is: {error}"),
                }
            }
        }
    }

    fn is_here(&self, manifest: &Manifest) -> Result<bool, snapshot::Error> {
        let listing = snapshot::list(self.files, Some(self.options.cluster))?;
        Ok(listing.whole(manifest.description.group).any(|whole| whole == manifest))
    }

    /// The chunks of a whole snapshot that are not what was written, or cannot be read.
    fn find_rotten(&self, manifest: &Manifest) -> Looked {
        let opened = match self.is_here(manifest) {
            Ok(true) => Reader::open(self.files, manifest.clone()),
            // Newer ones took its place.
            Ok(false) => return Looked::AtNothing,
            Err(error) => Err(error),
        };
        let mut reader = match opened {
            Ok(reader) => reader,
            Err(error) => {
                tracing::error!(name = manifest.description.name(), "a damaged snapshot cannot be looked at: {error}");
                return Looked::AtNothing;
            }
        };
        let is_rotten = |number: &u32| reader.chunk(self.files, *number).is_err();
        let rotten = (0..manifest.chunks()).take_while(|_| self.check().is_ok()).filter(is_rotten).collect();
        reader.close(self.files);
        if self.check().is_ok() { Looked::Through(rotten) } else { Looked::Interrupted }
    }

    /// Puts a chunk back that cannot be used, in rounds as for all chunks.
    pub(super) async fn mend(
        &mut self,
        manifest: &Manifest,
        number: u32,
        sources: &mut Sources,
    ) -> Result<(), FetchError> {
        let (news, mut pause, mut last) = (Instant::now(), PAUSE_MIN, String::new());
        let (name, point) = (manifest.description.name(), manifest.description.point);
        loop {
            for source in sources.all.iter_mut().filter(|source| source.has(number)) {
                match self.one_chunk(manifest, number, source).await {
                    Ok(Some(bytes)) => match snapshot::mend(self.files, manifest, number, &bytes)? {
                        Mended::Bad => is_bad(source, &name, number),
                        Mended::Done => {
                            let node = source.node;
                            tracing::warn!(name, number, %node, "a rotten chunk was put back from another node");
                            return Ok(());
                        }
                        Mended::WasRight => {
                            tracing::warn!(name, number, "a chunk that could not be used reads right now");
                            return Ok(());
                        }
                    },
                    Ok(None) | Err(Ended::Over) => {}
                    Err(Ended::Failed(error)) => return Err(error),
                    Err(Ended::Away(why)) => last = format!("node {}: {why}", source.node),
                }
            }
            if sources.is_exhausted([number].into_iter()) {
                return Err(FetchError::Nowhere { point, asked: sources.asked() });
            }
            self.pause(&mut pause, news, point, &last).await?;
        }
    }

    async fn one_chunk(
        &mut self,
        manifest: &Manifest,
        number: u32,
        source: &mut Source,
    ) -> Result<Option<Bytes>, Ended> {
        let (group, point) = (manifest.description.group, manifest.description.point);
        let mut link = self.link(source.node).await?;
        let Some(theirs) = self.manifest(&mut link, group, point, source).await? else { return Ok(None) };
        if theirs != *manifest {
            differs(source, manifest, &theirs);
            return Ok(None);
        }
        self.ask(&mut link, SnapshotRequest::Chunk { group, point, number }).await?;
        let answer = self.answer(&mut link).await?;
        self.chunk(answer, number, source)
    }
}
