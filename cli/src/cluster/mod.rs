//! The cluster that a command asks, and what it says when that fails.

mod problem;
mod request;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::core::{NamespaceResourceScope, PartialObjectMeta};
use kube::{Client, Resource, ResourceExt};
use rulecast_connect::ClusterOptions;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub(crate) use problem::Problem;
pub(crate) use request::{Request, Verb};

/// By this name the API server remembers which fields this program has set.
pub(crate) const MANAGER: &str = "kubectl-rulecast";
/// How long one request may take. Lists are read in pages, so none is large.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many objects to read at once.
const PAGE: u32 = 500;

/// Which cluster, and as whom.
#[derive(Args, Debug, Clone, Default)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct ClusterArgs {
    /// A kubeconfig file, instead of $KUBECONFIG, ~/.kube/config or the pod's service account.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The context in it, instead of its current one.
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
}

/// An API server.
pub(crate) struct Cluster {
    client: Client,
    address: String,
    namespace: String,
}

/// Runs a command that asks a cluster.
pub(crate) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    // TLS has no provider of its own. A second installation is the only way to fail, and as good.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("an event loop")?
        .block_on(work)
}

impl Cluster {
    /// Reads the configuration. Nothing is sent yet.
    pub(crate) async fn connect(args: &ClusterArgs) -> Result<Self, Problem> {
        let options = ClusterOptions { kubeconfig: args.kubeconfig.clone(), context: args.context.clone() };
        let failed = |error| Problem::of_configuration(&error, args);
        let config = rulecast_connect::config(&options).await.map_err(failed)?;
        let client = rulecast_connect::connect(&options).await.map_err(failed)?;
        let address = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        Ok(Self { client, address, namespace: config.default_namespace })
    }

    /// The server's URL.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The context's namespace.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The client, for what is not asked for often enough to have a method here.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Waits for an answer, but not for ever, and says in words what was wrong with it.
    pub(crate) async fn ask<T>(
        &self,
        request: &Request,
        answer: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Problem> {
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(answer) => answer.map_err(|error| Problem::of_answer(&error, request, &self.address)),
            Err(_) => Err(Problem::Silent { address: self.address.clone(), seconds: PATIENCE.as_secs() }),
        }
    }

    /// All objects of a kind, in all namespaces, by name.
    pub(crate) async fn list<K>(&self) -> Result<Vec<K>, Problem>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        self.list_in(&Api::all(self.client()), &Request::of::<K>(Verb::List), ListParams::default()).await
    }

    /// Those whose field has this value.
    pub(crate) async fn list_where<K>(&self, field: &str, value: &str) -> Result<Vec<K>, Problem>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let params = ListParams::default().fields(&format!("{field}={value}"));
        self.list_in(&Api::all(self.client()), &Request::of::<K>(Verb::List), params).await
    }

    /// What a list with these parameters has, read in pages.
    pub(crate) async fn list_in<K>(
        &self,
        api: &Api<K>,
        request: &Request,
        params: ListParams,
    ) -> Result<Vec<K>, Problem>
    where
        K: Clone + DeserializeOwned + std::fmt::Debug,
    {
        let mut page = params.limit(PAGE);
        let mut all = Vec::new();
        loop {
            let list = self.ask(request, api.list(&page)).await?;
            all.extend(list.items);
            match list.metadata.continue_ {
                Some(token) if !token.is_empty() => page = page.continue_token(&token),
                _ => return Ok(all),
            }
        }
    }

    /// A cluster-scoped object; when there is none, the error names those that exist.
    pub(crate) async fn get<K>(&self, name: &str) -> Result<K, Problem>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        match self.find(name).await? {
            Some(object) => Ok(object),
            None => Err(self.not_found(&Api::<PartialObjectMeta<K>>::all(self.client()), name).await),
        }
    }

    /// A cluster-scoped object, if there is one of this name.
    pub(crate) async fn find<K>(&self, name: &str) -> Result<Option<K>, Problem>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        self.find_in(&Api::all(self.client()), &Request::of::<K>(Verb::Get).named(name)).await
    }

    /// An object of a namespace, if there is one of this name.
    pub(crate) async fn find_namespaced<K>(&self, namespace: &str, name: &str) -> Result<Option<K>, Problem>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let request = Request::of::<K>(Verb::Get).named(name).within(namespace);
        self.find_in(&Api::namespaced(self.client(), namespace), &request).await
    }

    async fn find_in<K>(&self, api: &Api<K>, request: &Request) -> Result<Option<K>, Problem>
    where
        K: Clone + DeserializeOwned + std::fmt::Debug,
    {
        match self.ask(request, api.get(request.name())).await {
            Ok(object) => Ok(Some(object)),
            Err(Problem::NotFound { .. }) => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// The problem that there is no object of this name, with the names that there are.
    pub(crate) async fn not_found<K>(&self, api: &Api<PartialObjectMeta<K>>, name: &str) -> Problem
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let request = Request::of::<K>(Verb::List);
        // Without the right to list, the sentence is shorter.
        let listed = self.ask(&request, api.list_metadata(&ListParams::default().limit(PAGE))).await;
        let names = listed.map(|list| list.items.iter().map(ResourceExt::name_any).collect());
        Problem::not_found(&Request::of::<K>(Verb::Get).named(name), names.ok())
    }

    /// Changes an object by a JSON merge patch. One that names a `resourceVersion` is refused with [`Problem::Conflict`] when
    /// the object is a newer one by now. `dry_run`: the API server checks it and changes nothing.
    pub(crate) async fn patch<K>(&self, name: &str, patch: &Value, dry_run: bool) -> Result<K, Problem>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let params =
            PatchParams { dry_run, field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let api: Api<K> = Api::all(self.client());
        let request = Request::of::<K>(Verb::Patch).named(name);
        self.ask(&request, api.patch(name, &params, &Patch::Merge(patch))).await
    }
}
