//! The gRPC edge: conversion, sockets, tokens, and the NSM services as seen from the wire
