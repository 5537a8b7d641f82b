package main

import (
	"context"
	"errors"
	"log/slog"

	"hereis"
)

func runNode(ctx context.Context, cfg hereis.Config, log *slog.Logger) error {
	return errors.New("not wired")
}
