"""Aidtrail"""
