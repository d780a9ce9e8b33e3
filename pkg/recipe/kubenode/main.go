// Command kubenode is every Go program that a node of a one-node cluster runs, in one binary. The name it is called by
// says which program it is; failing that, the first argument does.
package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	_ "github.com/containerd/containerd/v2/cmd/containerd/builtins"
	containerd "github.com/containerd/containerd/v2/cmd/containerd/command"
	ctr "github.com/containerd/containerd/v2/cmd/ctr/app"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubeadm "k8s.io/kubernetes/cmd/kubeadm/app"
	kubeadmerrors "k8s.io/kubernetes/cmd/kubeadm/app/util/errors"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"

	_ "k8s.io/client-go/plugin/pkg/client/auth"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	_ "time/tzdata" // for the time zones of CronJobs

	"kubenode/localpath"
)

// programs are functions that run a program on os.Args and end the process where it failed.
func programs() map[string]func() {
	return map[string]func(){
		"kube-apiserver":          func() { await(); os.Exit(cli.Run(apiserver.NewAPIServerCommand())) },
		"kube-controller-manager": func() { os.Exit(cli.Run(controllermanager.NewControllerManagerCommand())) },
		"kube-scheduler":          func() { os.Exit(cli.Run(scheduler.NewSchedulerCommand())) },
		"kube-proxy":              func() { await(); os.Exit(cli.Run(proxy.NewProxyCommand())) },
		"kubelet":                 func() { os.Exit(cli.Run(kubelet.NewKubeletCommand(context.Background()))) },
		"kubeadm":                 func() { kubeadmerrors.HandleError(kubeadm.Run()) },
		"kubectl":                 runKubectl,
		"etcd":                    func() { etcdmain.Main(os.Args) },
		"coredns":                 runCoreDNS,
		"containerd":              func() { exitOn("containerd", containerd.App().Run(context.Background(), os.Args)) },
		"ctr":                     func() { exitOn("ctr", ctr.New().Run(context.Background(), os.Args)) },
		"local-path-provisioner":  func() { exitOn("local-path-provisioner", localpath.Run()) },
	}
}

func main() {
	all := programs()
	name := filepath.Base(os.Args[0])
	if all[name] == nil && len(os.Args) > 1 {
		name, os.Args = os.Args[1], os.Args[1:]
	}
	run := all[name]
	if run == nil {
		fmt.Fprintln(os.Stderr, "kubenode: call it by one of these names:", slices.Sorted(maps.Keys(all)))
		os.Exit(2)
	}
	if name != "coredns" {
		withoutCoreDNSFlags()
	}
	run()
}

func runKubectl() {
	logs.GlogSetter(kubectl.GetLogVerbosity(os.Args)) //nolint:errcheck // kubectl's own main ignores it too
	if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
		kubectlutil.CheckErr(err)
	}
}

func exitOn(name string, err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
		os.Exit(1)
	}
}
