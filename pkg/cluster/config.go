package cluster

import (
	"fmt"

	"sigs.k8s.io/kind/pkg/apis/config/defaults"
	"sigs.k8s.io/kind/pkg/apis/config/v1alpha4"
)

// Origin is where the node image comes from. It decides the kind configuration: an image of ours brings its own network and
// DNS, and a stock one would have neither if kind's were left out.
type Origin string

// The origins of a node image.
const (
	Packages Origin = "packages" // built by platformctl from Go modules and Debian packages
	Pulled   Origin = "pulled"   // kindest/node
)

// StockImage is the node image that this version of kind's library is tested with, by digest.
func StockImage() string { return defaults.Image }

// Config is what a cluster is made from.
type Config struct {
	Image   string // reference of the node image, in the engine already
	Origin  Origin
	APIPort int    // port on the host's 127.0.0.1 that leads to NodePort
	Content string // key of what was prepared in the store for a node of that image; "" for the image alone
	OnNode  func() // called when the node's container is there, while kubeadm has yet to work in it; may be nil
}

// kindConfig is the configuration that kind is given, a function of nothing but its arguments.
func kindConfig(name, stateDir, storeDir string, cfg Config) *v1alpha4.Cluster {
	k := &v1alpha4.Cluster{
		TypeMeta: v1alpha4.TypeMeta{Kind: "Cluster", APIVersion: "kind.x-k8s.io/v1alpha4"},
		Name:     name,
		Networking: v1alpha4.Networking{
			APIServerAddress: "127.0.0.1",
		},
		Nodes: []v1alpha4.Node{{
			Role:  v1alpha4.ControlPlaneRole,
			Image: cfg.Image,
			ExtraMounts: []v1alpha4.Mount{
				// The proof of who made the cluster.
				{HostPath: stateDir, ContainerPath: stateInNode, Readonly: true},
			},
			ExtraPortMappings: []v1alpha4.PortMapping{
				{ContainerPort: NodePort, HostPort: int32(cfg.APIPort), ListenAddress: "127.0.0.1", Protocol: v1alpha4.PortMappingProtocolTCP},
			},
		}},
		KubeadmConfigPatches: []string{kubeletPatch, clusterPatch},
	}
	if cfg.Content != "" {
		k.Nodes[0].ExtraMounts = append(k.Nodes[0].ExtraMounts, v1alpha4.Mount{HostPath: storeDir, ContainerPath: storeInNode})
	}
	if cfg.Origin == Packages {
		k.Networking.DisableDefaultCNI = true
		k.Networking.KubeProxyMode = "none" // our image brings its own; kind has no constant for it
		k.KubeadmConfigPatches = append(k.KubeadmConfigPatches, initPatch)
	} else {
		k.KubeadmConfigPatches = append(k.KubeadmConfigPatches, proxyPatch)
	}
	return k
}

// Patches are merged into kubeadm's configuration, but a list in them replaces the list there: what kind's own lists hold must
// be said again.
const (
	// kubeletPatch lets the kubelet run on a host with cgroup v1, and restarts a crashed container after a second: on a
	// developer's machine a service that came up before its database should not sit out a back-off of minutes.
	kubeletPatch = `kind: KubeletConfiguration
failCgroupV1: false
crashLoopBackOff:
  maxContainerRestartPeriod: 1s
`
	// clusterPatch makes keys that are quick to make, and lets the controller manager start its controllers without throttling
	// itself. There is one of each controller, so that none need wait for the lease of its former life after a restart, and one
	// etcd, which need not wait half a second for others before it elects itself. The API server waits for it (kubenode's await);
	// refused by it once, it would wait for a second. The two others show who probes them the API server's certificate: without one
	// each makes RSA keys whenever it starts, on the cores that the API server starts on.
	clusterPatch = `kind: ClusterConfiguration
encryptionAlgorithm: ECDSA-P256
apiServer:
  extraEnvs:
  - name: KUBENODE_AWAIT
    value: 127.0.0.1:2379
etcd:
  local:
    extraArgs:
    - name: heartbeat-interval
      value: "20"
    - name: election-timeout
      value: "100"
controllerManager:
  extraArgs:
  - name: enable-hostpath-provisioner
    value: "true"
  - name: leader-elect
    value: "false"
  - name: kube-api-qps
    value: "500"
  - name: kube-api-burst
    value: "1000"
  - name: tls-cert-file
    value: /etc/kubernetes/pki/apiserver.crt
  - name: tls-private-key-file
    value: /etc/kubernetes/pki/apiserver.key
scheduler:
  extraArgs:
  - name: leader-elect
    value: "false"
  - name: tls-cert-file
    value: /etc/kubernetes/pki/apiserver.crt
  - name: tls-private-key-file
    value: /etc/kubernetes/pki/apiserver.key
  extraVolumes:
  - name: certificate
    hostPath: /etc/kubernetes/pki/apiserver.crt
    mountPath: /etc/kubernetes/pki/apiserver.crt
    pathType: File
    readOnly: true
  - name: key
    hostPath: /etc/kubernetes/pki/apiserver.key
    mountPath: /etc/kubernetes/pki/apiserver.key
    pathType: File
    readOnly: true
`
	// proxyPatch, where kube-proxy is kubeadm's, has a Service lead to a pod as soon as the pod is ready: kube-proxy's usual second between two changes of its
	// rules spares CPU where there are thousands of Services.
	proxyPatch = `kind: KubeProxyConfiguration
iptables:
  minSyncPeriod: 100ms
nftables:
  minSyncPeriod: 100ms
`
	// initPatch skips what our node image brings itself: its DNS comes with the storage manifest, kube-proxy is a unit. Preflight is skipped by kind
	// too, whose list this one replaces. No other node joins, so that nothing is prepared for one: with it kubeadm would ask for
	// more than its client may ask for at once, and wait for a second.
	initPatch = `kind: InitConfiguration
skipPhases:
- preflight
- addon/coredns
- addon/kube-proxy
- bootstrap-token
- show-join-command
- kubelet-finalize
`
)

// validate names what kind would not say clearly.
func (cfg Config) validate() error {
	switch {
	case cfg.Image == "":
		return fmt.Errorf("no node image was named")
	case cfg.Origin != Packages && cfg.Origin != Pulled:
		return fmt.Errorf("%q is no origin of a node image", cfg.Origin)
	case cfg.APIPort < 1 || cfg.APIPort > 65535:
		return fmt.Errorf("%d is no port", cfg.APIPort)
	}
	return nil
}
