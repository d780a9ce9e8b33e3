package recipe

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// The modules that are edited.
const (
	kubernetes         = "k8s.io/kubernetes"
	controllerManagers = "k8s.io/controller-manager"
	apiServers         = "k8s.io/apiserver"
)

// edit is one place in a file of a module that is compiled otherwise than it stands there.
type edit struct{ module, file, from, to string }

// edits are for what Kubernetes has no setting for: pauses in which a node that starts does nothing. Elsewhere they spare a server
// that has many nodes, or a node that has hundreds of pods.
//
//   - The API server waits for a second before it looks whether its roles and priority classes are there, and is not healthy before.
//   - The controller manager looks once a second whether the API server is healthy; until it is, no Service leads to the pods of now.
//   - The API server, the controller manager and the scheduler make two RSA keys each before they do anything else, for a certificate
//     that only they themselves are shown; one of an elliptic curve costs nothing.
//   - The kubelet starts the API server, and asks it for its node and for the Services long before it answers, or in the moment in
//     which it does not know yet what a kubelet may ask. What is refused is asked again after 0.8 to 1.6 seconds, then 1.6 to 3.2; a
//     pod that comes before the Services is tried again later. And only once a second the kubelet looks whether it knows its node,
//     and then asks for its pods and what they need, which it may as soon as the API server itself has seen the pods: so it waits
//     until that says it is ready.
//   - A pod whose start failed is tried again after ten seconds.
//   - That a container has ended, a pod's first before its second begins, the kubelet sees when it looks, once a second; three times
//     a second whether a pod's volumes are mounted, and ten times what there is to mount.
//   - A container that has begun is probed for the first time at the next tick of its startup probe's period, a second or more.
//   - kubeadm looks twice a second whether what it waits for is there.
func edits() []edit {
	const soon, again, look, volumes = "100 * time.Millisecond", "50 * time.Millisecond", "200 * time.Millisecond", "20 * time.Millisecond"
	const kubelet, loopback = "pkg/kubelet/kubelet.go", "pkg/server/options/serving_with_loopback.go"
	// startWhen has the kubelet begin to watch when it was answered once.
	startWhen := func(answered string) string {
		return `		go func() {
			for ctx.Err() == nil {
				if _, err := kubeDeps.KubeClient.CoreV1().` + answered + `; err == nil {
					break
				}
				time.Sleep(` + again + `)
			}
			kubeInformers.Start(wait.NeverStop)
		}()
`
	}
	const (
		start    = "\t\tkubeInformers.Start(wait.NeverStop)\n"
		nodes    = "\t\tlogger.Info(\"Attempting to sync node with API server\")\n"
		tick     = "\t\t// Wait for next probe tick.\n\t\tselect {\n"
		services = "\t\tserviceHasSynced = kubeInformers.Core().V1().Services().Informer().HasSynced\n"
	)
	return []edit{{
		kubernetes, "pkg/registry/rbac/rest/storage_rbac.go",
		"wait.Poll(1*time.Second, 30*time.Second, ",
		"wait.PollImmediate(" + soon + ", 30*time.Second, ",
	}, {
		kubernetes, "pkg/registry/scheduling/rest/storage_scheduling.go",
		"wait.Poll(1*time.Second, 30*time.Second, ",
		"wait.PollImmediate(" + soon + ", 30*time.Second, ",
	}, {
		controllerManagers, "app/helper.go",
		"wait.PollImmediate(time.Second, timeout, ",
		"wait.PollImmediate(" + again + ", timeout, ",
	}, {
		apiServers, loopback,
		"import (\n",
		"import (\n\t\"crypto\"\n\t\"k8s.io/client-go/util/keyutil\"\n",
	}, {
		apiServers, loopback,
		`certutil.GenerateSelfSignedCertKeyWithOptions(certutil.SelfSignedCertKeyOptions{
		Host:   server.LoopbackClientServerNameOverride,
		MaxAge: maxAge,
	})
`,
		`func() ([]byte, []byte, error) {
		keyPEM, err := keyutil.MakeEllipticPrivateKeyPEM()
		if err != nil {
			return nil, nil, err
		}
		key, err := keyutil.ParsePrivateKeyPEM(keyPEM)
		if err != nil {
			return nil, nil, err
		}
		cert, err := certutil.NewSelfSignedCACert(certutil.Config{CommonName: server.LoopbackClientServerNameOverride}, key.(crypto.Signer))
		if err != nil {
			return nil, nil, err
		}
		certPEM, err := certutil.EncodeCertificates(cert)
		return certPEM, keyPEM, err
	}()
`,
	}, {
		kubernetes, "pkg/kubelet/config/apiserver.go",
		"const WaitForAPIServerSyncPeriod = 1 * time.Second\n",
		"const WaitForAPIServerSyncPeriod = " + again + "\n",
	}, {
		kubernetes, "pkg/kubelet/config/apiserver.go",
		"\t\t\tif nodeHasSynced() {\n",
		"\t\t\tif nodeHasSynced() && c.CoreV1().RESTClient().Get().AbsPath(\"/readyz\").Do(wait.ContextForChannel(wait.NeverStop)).Error() == nil {\n",
	}, {
		kubernetes, kubelet,
		"\tbackOffPeriod = time.Second * 10\n",
		"\tbackOffPeriod = time.Second\n",
	}, {
		kubernetes, kubelet,
		start + nodes,
		startWhen("Nodes().List(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, string(nodeName)).String()})") + nodes,
	}, {
		kubernetes, kubelet,
		services + start,
		services + startWhen(`Services("").List(ctx, metav1.ListOptions{Limit: 1})`),
	}, {
		kubernetes, kubelet,
		"\tgenericPlegRelistPeriod    = time.Second * 1\n",
		"\tgenericPlegRelistPeriod    = " + look + "\n",
	}, {
		kubernetes, "pkg/kubelet/volumemanager/volume_manager.go",
		"\tpodAttachAndMountRetryInterval = 300 * time.Millisecond\n",
		"\tpodAttachAndMountRetryInterval = " + again + "\n",
	}, {
		kubernetes, "pkg/kubelet/volumemanager/volume_manager.go",
		"\treconcilerLoopSleepPeriod = 100 * time.Millisecond\n",
		"\treconcilerLoopSleepPeriod = " + volumes + "\n",
	}, {
		kubernetes, "pkg/kubelet/volumemanager/volume_manager.go",
		"\tdesiredStateOfWorldPopulatorLoopSleepPeriod = 100 * time.Millisecond\n",
		"\tdesiredStateOfWorldPopulatorLoopSleepPeriod = " + volumes + "\n",
	}, {
		kubernetes, "pkg/kubelet/prober/worker.go",
		tick,
		`		var first <-chan time.Time
		if w.probeType == startup && !w.onHold && w.resultRun == 0 {
			first = time.After(` + again + `)
		}
` + tick + "\t\tcase <-first:\n",
	}, {
		kubernetes, "cmd/kubeadm/app/constants/constants.go",
		"\tKubernetesAPICallRetryInterval = 500 * time.Millisecond\n",
		"\tKubernetesAPICallRetryInterval = " + again + "\n",
	}}
}

// in returns content with the edit made. Where its place is not there, or is not the only one, Kubernetes has changed.
func (e edit) in(content []byte) ([]byte, error) {
	if n := bytes.Count(content, []byte(e.from)); n != 1 {
		return nil, fmt.Errorf("what is edited in Kubernetes' %s stands there %d times: %s", e.file, n, strconv.Quote(e.from))
	}
	return bytes.Replace(content, []byte(e.from), []byte(e.to), 1), nil
}

// edited makes a module file in work, beside what it names: the node's module, but with Kubernetes' modules as the edits make them.
// The go command's own overlay does not reach into the cache of modules.
func (k *Kitchen) edited(ctx context.Context, work string) (modfile string, err error) {
	for _, name := range []string{"go.mod", "go.sum"} {
		content, err := os.ReadFile(filepath.Join(k.module(), name))
		if err == nil {
			err = os.WriteFile(filepath.Join(work, name), content, 0o644)
		}
		if err != nil {
			return "", fmt.Errorf("edit Kubernetes: %w", err)
		}
	}
	modfile = filepath.Join(work, "go.mod")
	for _, module := range []string{kubernetes, controllerManagers, apiServers} {
		from, err := k.moduleFolder(ctx, k.module(), module)
		if err != nil {
			return "", err
		}
		changed := map[string][]byte{}
		for _, e := range edits() {
			if e.module != module {
				continue
			}
			content, ok := changed[e.file]
			if !ok {
				if content, err = os.ReadFile(filepath.Join(from, e.file)); err != nil {
					return "", fmt.Errorf("edit Kubernetes: %w", err)
				}
			}
			if changed[e.file], err = e.in(content); err != nil {
				return "", err
			}
		}
		to := filepath.Join(work, path.Base(module))
		if err := shadow(from, to, ".", changed); err != nil {
			return "", fmt.Errorf("edit Kubernetes: %w", err)
		}
		if _, err := k.run.Run(ctx, k.golang(k.module(), k.machine.arch, "mod", "edit", "-replace="+module+"="+to, modfile)); err != nil {
			return "", err
		}
	}
	return modfile, nil
}

// shadow makes the folder at below to from the one below from: the changed files, and links to all else.
func shadow(from, to, at string, changed map[string][]byte) error {
	if err := os.Mkdir(filepath.Join(to, at), 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(filepath.Join(from, at))
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := filepath.Join(at, e.Name())
		content, is := changed[name]
		within := false
		for file := range changed {
			within = within || strings.HasPrefix(file, name+string(filepath.Separator))
		}
		switch {
		case is:
			err = os.WriteFile(filepath.Join(to, name), content, 0o644)
		case within:
			err = shadow(from, to, name, changed)
		default:
			err = os.Symlink(filepath.Join(from, name), filepath.Join(to, name))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
