package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

var (
	errNoCertificate = errors.New("the file holds no certificate in PEM form")
	errUnfinished    = errors.New("the file holds an unfinished or damaged PEM block: write all of it")
)

// parseCertificates reads certificates in PEM form. Text between them is left aside, as bundles have it, and so are blocks
// of other things. But it does not pass over what is damaged, as the standard library does: half a file is none.
func parseCertificates(content []byte) ([]*x509.Certificate, error) {
	marks := 0
	for line := range bytes.Lines(content) {
		line = bytes.TrimSpace(bytes.TrimPrefix(line, []byte("\ufeff")))
		if bytes.HasPrefix(line, []byte("-----")) && len(bytes.Trim(line, "-")) > 0 { // more than a line drawn
			marks++
		}
	}
	var all []*x509.Certificate
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		marks -= 2
		if block.Type != "CERTIFICATE" {
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d cannot be read: %w", len(all)+1, err)
		}
		all = append(all, certificate)
	}
	switch {
	case marks != 0:
		return nil, errUnfinished
	case len(all) == 0:
		return nil, errNoCertificate
	}
	return all, nil
}

// parseCA reads certificates of authorities.
func parseCA(content []byte) (*x509.CertPool, error) {
	all, err := parseCertificates(content)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for _, certificate := range all {
		pool.AddCert(certificate)
	}
	return pool, nil
}

// checkChain returns an error unless content is a certificate and those between it and an authority, each signed by the next.
func checkChain(content []byte) error {
	all, err := parseCertificates(content)
	if err != nil {
		return err
	}
	for i, certificate := range all[1:] {
		if err := all[i].CheckSignatureFrom(certificate); err != nil {
			return fmt.Errorf("the chain is broken: certificate %d is not signed by certificate %d: %w", i+1, i+2, err)
		}
	}
	return nil
}
