// What does go-git make of the gate? Clones a url, commits a file, pushes it as a branch, and prints what it is told.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing/object"
)

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func main() {
	url, path, content, branch := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	repository, err := git.PlainClone(path, false, &git.CloneOptions{URL: url})
	check(err)
	check(os.WriteFile(filepath.Join(path, "new"), []byte(content), 0o644))
	tree, err := repository.Worktree()
	check(err)
	_, err = tree.Add("new")
	check(err)
	me := &object.Signature{Name: "a", Email: "a@b", When: time.Unix(1, 0)}
	_, err = tree.Commit("by go-git", &git.CommitOptions{Author: me})
	check(err)
	refspec := config.RefSpec("refs/heads/main:refs/heads/" + branch)
	check(repository.Push(&git.PushOptions{RefSpecs: []config.RefSpec{refspec}, Progress: os.Stdout}))
}
