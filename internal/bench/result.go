package main

import (
	"fmt"
	"slices"
)

// result is one round. Times are in milliseconds, CPU in microseconds per request.
type result struct {
	Count       int
	Rate        float64
	P50, P99    float64
	CPU, Allocs float64
	Err         string
}

// series is the rounds of one variant; its figures are medians.
type series struct{ rounds []result }

func (s *series) add(r result) { s.rounds = append(s.rounds, r) }

func (s *series) median(of func(result) float64) float64 {
	var values []float64
	for _, r := range s.rounds {
		values = append(values, of(r))
	}
	return median(values)
}

func (s *series) rate() float64   { return s.median(func(r result) float64 { return r.Rate }) }
func (s *series) p50() float64    { return s.median(func(r result) float64 { return r.P50 }) }
func (s *series) p99() float64    { return s.median(func(r result) float64 { return r.P99 }) }
func (s *series) cpu() float64    { return s.median(func(r result) float64 { return r.CPU }) }
func (s *series) allocs() float64 { return s.median(func(r result) float64 { return r.Allocs }) }

func (s *series) print(name string) {
	fmt.Printf("| %s | %.0f | %.2f | %.1f | %.1f | %.0f |\n", name, s.rate(), s.p50(), s.p99(), s.cpu(), s.allocs())
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}
