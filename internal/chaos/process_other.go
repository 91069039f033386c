//go:build !linux

package main

import (
	"errors"
	"os/exec"
)

func dieWithParent(*exec.Cmd) {}

func withMounts(*exec.Cmd) {}

func mountSmall(string, string) error { return errors.ErrUnsupported }

func unmount(string) error { return errors.ErrUnsupported }
