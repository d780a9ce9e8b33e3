package kube

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

// pause lies between two tries to reach an API server that does not answer.
const pause = 250 * time.Millisecond

// listWatch is a collection of objects that can be listed and watched.
type listWatch struct {
	options metav1.ListOptions
	list    func(context.Context, metav1.ListOptions) (runtime.Object, error)
	watch   func(context.Context, metav1.ListOptions) (watch.Interface, error)
}

// source makes a listWatch of a typed client's two methods.
func source[L runtime.Object](list func(context.Context, metav1.ListOptions) (L, error),
	watch func(context.Context, metav1.ListOptions) (watch.Interface, error), options metav1.ListOptions) listWatch {
	return listWatch{options: options, watch: watch,
		list: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return list(ctx, o) }}
}

// change is what happened to a collection. Just one of its fields is set; a list that came out empty sets only fresh.
type change struct {
	fresh bool             // this is the whole collection, and what is not in it is gone
	all   []runtime.Object // with fresh
	put   runtime.Object
	gone  runtime.Object
	err   error // the API server could not be asked; it will be asked again
}

// follow lists a collection, then watches it, and hands each change to see, until see returns true (nil) or ctx ends (its
// cause). It goes on after a failure, and lists again when a watch ends.
func follow(ctx context.Context, src listWatch, see func(change) (done bool)) error {
	for {
		done, err := once(ctx, src, see)
		if done {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil {
			continue
		}
		if see(change{err: err}) {
			return nil
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		case <-timer.C:
		}
	}
}

// once lists and watches until the watch ends, which a server does to each after some minutes.
func once(ctx context.Context, src listWatch, see func(change) bool) (done bool, err error) {
	list, err := src.list(ctx, src.options)
	if err != nil {
		return false, err
	}
	objects, err := meta.ExtractList(list)
	if err != nil {
		return false, err
	}
	if see(change{fresh: true, all: objects}) {
		return true, nil
	}
	about, err := meta.ListAccessor(list)
	if err != nil {
		return false, err
	}
	options := src.options
	options.ResourceVersion = about.GetResourceVersion()
	w, err := src.watch(ctx, options)
	if err != nil {
		return false, err
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return false, nil
		case e, open := <-w.ResultChan():
			if !open || e.Type == watch.Error {
				return false, nil // too old, or closed: list again
			}
			c := change{put: e.Object}
			switch e.Type {
			case watch.Bookmark:
				continue
			case watch.Deleted:
				c = change{gone: e.Object}
			}
			if see(c) {
				return true, nil
			}
		}
	}
}

// update brings a map of objects up to date. Objects of another type are left out.
func update[T any, P interface {
	*T
	runtime.Object
}](have map[string]T, c change, key func(P) string) {
	if c.fresh {
		clear(have)
	}
	for _, o := range append(c.all, c.put) {
		if p, ok := o.(P); ok {
			have[key(p)] = *p
		}
	}
	if p, ok := c.gone.(P); ok {
		delete(have, key(p))
	}
}
